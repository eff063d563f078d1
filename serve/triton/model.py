"""A model of Triton's Python backend: each request joins those under way, and is answered when its lists are found."""

import asyncio
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, final

import msgspec

from ...catalog.errors import SpecBeamError, said
from ...engines.bundle.items import Bundle
from ..editions import Edition
from ..memory import device_of
from ..protocol.inference import TIMEOUT, lists_of
from ..protocol.lists import Lists
from ..protocol.refusals import Refused, refusal
from ..protocol.tensors import OUTPUTS, Scalar, Tensor
from ..recommender import AsyncRecommender
from ..worker import Worker
from .inputs import tensors_of
from .metrics import TritonMetrics
from .settings import KEY, read_settings

BUNDLE = "bundle"  # folder of a version
LOOKS = 0.2  # seconds between two looks at whether the client still wants an answer
HANDS_ON = 0.25  # seconds between two updates of the metrics


@final
class TritonModel:
    """What `TritonPythonModel` is, given the module that only the server's own process has.

    Replies come later, through each request's response sender: `execute` returns at once, so that what arrives next
    shares calls with what is under way.
    """

    def __init__(self, utils: Any) -> None:
        """utils: the module `triton_python_backend_utils`."""
        self._utils = utils

    def initialize(self, arguments: dict[str, str]) -> None:
        """Open the version's bundle, warm. What goes wrong stands in Triton's log and in its answer to a load."""
        try:
            self._open(arguments)
        except SpecBeamError as error:
            raise self._utils.TritonModelException(str(error)) from None

    def _open(self, arguments: dict[str, str]) -> None:
        name, version = arguments["model_name"], arguments["model_version"]
        folder = Path(arguments["model_repository"]) / version
        config = json.loads(arguments["model_config"])
        self._settings = read_settings(config["parameters"].get(KEY, {}).get("string_value", "{}"))
        opening = self._settings.opening(folder)
        chosen = opening.chosen(Bundle.open(folder / BUNDLE))
        _check_kind(config, device_of(chosen.engine), chosen.engine)
        if chosen.engine.startswith("onnxruntime"):  # the process is ours: one pool for all sessions
            from ...engines.onnxruntime.threads import share_threads

            share_threads(opening.engine.of(chosen.bundle)[1])
        recommender = opening.load(chosen)
        self._metrics = TritonMetrics(self._utils, name, version)
        self._worker = Worker(self._settings.serving(), self._metrics)
        self._model = AsyncRecommender(Edition(name, version, "1", recommender), self._worker)
        self._loop, self._under_way = asyncio.new_event_loop(), set[asyncio.Task[None]]()
        self._thread = Thread(target=self._loop.run_forever, name="specbeam-triton", daemon=True)
        self._thread.start()
        self._handing_on = asyncio.run_coroutine_threadsafe(self._hand_on(), self._loop)

    def execute(self, requests: list[Any]) -> None:
        """Take requests; each is answered by itself. Inputs are read here: Triton frees them afterwards."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                tensors, parameters = tensors_of(self._utils, request), _parameters(request)
            except Exception as error:
                self._send(sender, self._failure(error))
            else:
                self._loop.call_soon_threadsafe(self._begin, request, sender, tensors, parameters)

    def finalize(self) -> None:
        """Answer what is under way, then free all of it."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._worker.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._metrics.hand_on()

    def _begin(
        self, request: Any, sender: Any, tensors: dict[str, Tensor], parameters: dict[str, Scalar]
    ) -> None:  # fmt: skip
        task = self._loop.create_task(self._answer(request, sender, tensors, parameters))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _answer(
        self, request: Any, sender: Any, tensors: dict[str, Tensor], parameters: dict[str, Scalar]
    ) -> None:  # fmt: skip
        try:
            wanted = _wanted(request)
            lists = await _while_wanted(
                asyncio.create_task(lists_of(self._settings, self._model, tensors, parameters)), request.is_cancelled
            )
            answer = self._utils.InferenceResponse([self._tensor(lists, name) for name in wanted])
        except Exception as error:
            answer = self._failure(error)
        self._send(sender, answer)

    def _tensor(self, lists: Lists, name: str) -> Any:
        return self._utils.Tensor(name, lists.tensor(name))

    def _failure(self, error: Exception) -> Any:
        refused = refusal(error)
        if refused.status == 500:
            told = "".join(traceback.format_exception(error))
            self._utils.Logger.log_error(f"specbeam: a request failed: {said(error)}\n{told}")
        kinds = self._utils.TritonError
        codes = {
            400: kinds.INVALID_ARG, 404: kinds.NOT_FOUND, 429: kinds.UNAVAILABLE, 499: kinds.CANCELLED,
            503: kinds.UNAVAILABLE, 504: kinds.UNAVAILABLE,
        }  # fmt: skip
        field = f" ({refused.field})" if refused.field else ""
        told = f"{refused.code}{field}: {refused.message}"
        return self._utils.InferenceResponse(error=kinds(told, codes.get(refused.status, kinds.INTERNAL)))

    def _send(self, sender: Any, answer: Any) -> None:
        sender.send(answer, flags=self._utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    async def _hand_on(self) -> None:
        while True:
            await asyncio.to_thread(self._metrics.hand_on)
            await asyncio.sleep(HANDS_ON)

    async def _end(self) -> None:
        while self._under_way:
            await asyncio.wait(self._under_way)
        self._handing_on.cancel()


async def _while_wanted(work: "asyncio.Task[Lists]", cancelled: Callable[[], bool]) -> Lists:
    """What `work` returns; it is cancelled where the client has cancelled its request."""
    try:
        while not (await asyncio.wait((work,), timeout=LOOKS))[0]:
            if cancelled():
                raise Refused(499, "the request was cancelled.")
        return work.result()
    finally:
        work.cancel()


def _parameters(request: Any) -> dict[str, Scalar]:
    """A request's parameters; its timeout, in microseconds, among them, as the protocol has it."""
    told = request.parameters()
    found = msgspec.json.decode(told, type=dict[str, Scalar]) if told else {}
    timeout = request.timeout()
    return found | ({TIMEOUT: timeout} if timeout else {})


def _wanted(request: Any) -> list[str]:
    """The outputs that are asked for, in their order."""
    asked = set(request.requested_output_names())
    return [name for name in OUTPUTS if name in asked]


def _check_kind(config: dict[str, Any], device: str, engine: str) -> None:
    """Raise `SpecBeamError` where Triton was told another kind of instance than the engine is."""
    expected = "KIND_GPU" if device == "cuda" else "KIND_CPU"
    kinds = {group.get("kind") for group in config.get("instance_group", [])} - {"KIND_AUTO", "KIND_MODEL"}
    if kinds - {expected}:
        raise SpecBeamError(
            f"config.pbtxt asks for instances of {', '.join(sorted(kinds))}, and the engine {engine} is for "
            f"{expected}. Write {expected} there, or name another engine."
        )
