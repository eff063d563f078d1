"""The Open Inference Protocol v2, for Triton's and KServe's clients: histories or prompts in, ranked lists out."""

from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ... import __version__
from ..protocol.asking import decoded
from ..protocol.inference import lists_of
from ..protocol.lists import Lists
from ..protocol.refusals import Refused
from ..protocol.tensors import INPUTS as MODEL_INPUTS
from ..protocol.tensors import OUTPUTS as MODEL_OUTPUTS
from ..protocol.tensors import Scalar
from ..recommender import AsyncRecommender
from .limits import read_body, while_connected
from .service import Service
from .tensors import InputTensor, OutputTensor, read_tensors, written

HEADER_LENGTH = "Inference-Header-Content-Length"
JSON, OCTETS = "application/json", "application/octet-stream"
EXTENSIONS = ["binary_tensor_data"]
INPUTS, OUTPUTS = (
    [{"name": name, "datatype": kind.datatype, "shape": kind.shape} for name, kind in tensors.items()]
    for tensors in (MODEL_INPUTS, MODEL_OUTPUTS)
)
_encode = msgspec.json.Encoder().encode


class WantedOutput(msgspec.Struct, frozen=True):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Scalar] = {}


class InferRequest(msgspec.Struct, frozen=True):
    """The JSON of an inference."""

    inputs: Annotated[list[InputTensor], msgspec.Meta(min_length=1, max_length=8)]
    outputs: Annotated[list[WantedOutput], msgspec.Meta(max_length=8)] | None = None  # None: all
    id: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    parameters: dict[str, Scalar] = {}


class InferResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The JSON of an answer."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    parameters: dict[str, Scalar]
    id: str = ""


def routes(service: Service) -> list[Route]:
    """What this file serves."""
    endpoint = Endpoints(service)
    model = "/v2/models/{name}"
    found = [
        Route("/v2", endpoint.server),
        Route("/v2/health/live", endpoint.live),
        Route("/v2/health/ready", endpoint.ready),
    ]
    for path in (model, f"{model}/versions/{{version}}"):
        found += [
            Route(path, endpoint.metadata),
            Route(f"{path}/ready", endpoint.model_ready),
            Route(f"{path}/infer", endpoint.infer, methods=["POST"]),
        ]
    return found


class Endpoints:
    """What each path answers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def server(self, request: Request) -> Response:
        return _json({"name": "specbeam", "version": __version__, "extensions": EXTENSIONS})

    async def live(self, request: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        ready = self._service.phase == "ready" and bool(self._service.models.names)
        return Response(_encode({"ready": ready}), 200 if ready else 503, media_type=JSON)

    async def metadata(self, request: Request) -> Response:
        edition = self._model(request).edition
        return _json(
            {
                "name": edition.model, "versions": self._service.models.versions(edition.model),
                "platform": "specbeam", "inputs": INPUTS,
                "outputs": OUTPUTS, "parameters": {"catalog_version": edition.catalog},
            }
        )  # fmt: skip

    async def model_ready(self, request: Request) -> Response:
        return _json({"name": self._model(request).edition.model, "ready": True})

    async def infer(self, request: Request) -> Response:
        model = self._model(request)
        request.scope["model"] = model.edition.model
        body = await read_body(request, self._service.settings.limits)
        head, binary = _parted(body, request.headers.get(HEADER_LENGTH))
        asked = decoded(head, InferRequest)
        tensors = read_tensors(asked.inputs, binary, self._service.settings.limits.body)
        lists = await while_connected(request, lists_of(self._service.settings, model, tensors, asked.parameters))
        return _answer(asked, lists)

    def _model(self, request: Request) -> AsyncRecommender:
        self._service.check_ready()
        return self._service.models.named(request.path_params["name"], request.path_params.get("version"))


def _json(content: Any) -> Response:
    return Response(_encode(content), media_type=JSON)


def _parted(body: bytes, told: str | None) -> tuple[bytes, bytes]:
    """The JSON, and the tensors that follow it."""
    if told is None:
        return body, b""
    if not (told.isascii() and told.isdecimal() and len(told) < 20 and int(told) <= len(body)):
        raise Refused(400, f"the header {HEADER_LENGTH} is {told[:40]!r}; the body has {len(body)} bytes.")
    return body[: int(told)], body[int(told) :]


def _answer(asked: InferRequest, lists: Lists) -> Response:
    by_default = asked.parameters.get("binary_data_output") is True
    wanted = asked.outputs or [WantedOutput(name) for name in MODEL_OUTPUTS]
    parts = []
    for output in wanted:
        if output.name not in MODEL_OUTPUTS:
            raise Refused(400, f"there is no such output; expected of: {', '.join(MODEL_OUTPUTS)}.", field="outputs")
        binary = output.parameters.get("binary_data", by_default) is True
        parts.append(written(output.name, lists.tensor(output.name), binary=binary))
    head = _encode(
        InferResponse(
            lists.model, lists.version, [tensor for tensor, _ in parts], {"catalog_version": lists.catalog}, asked.id
        )
    )
    raw = b"".join(part for _, part in parts)
    if not any(tensor.parameters for tensor, _ in parts):
        return Response(head, media_type=JSON)
    return Response(head + raw, media_type=OCTETS, headers={HEADER_LENGTH: str(len(head))})
