"""Whether something runs here, found by running it: in a process of its own, which a broken library may end."""

import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from ...catalog.errors import EngineError, SpecBeamError, is_fault, said
from ...catalog.finite import are_logprobs
from ..base import Engine
from ..bundle.facts import Limits, Role
from ..bundle.model import ModelBundle
from ..bundle.open import open_bundle
from ..latency import call, random_tokens
from ..reading import begin
from ..registry import find_backend, load_engine

NEGATE = (  # ONNX's bytes of a small graph (IR version 8, opset 13): y [1] = Neg(x [1]), of float32
    b'\x08\x08:2\n\x0b\n\x01x\x12\x01y"\x03Neg\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
PROMPT = 4  # tokens
LIKELY = {
    "SIGILL": "its library has instructions that this processor lacks",
    "SIGKILL": "mostly for want of memory",
}


class Answer(NamedTuple):
    """What came of a trial."""

    found: tuple[str, ...]  # what it told
    fault: str | None  # why it does not run; None: it does


def tried(trial: Callable[..., tuple[str, ...]], *arguments: object) -> Answer:
    """Run `trial` in a process of its own. Never raises for what is wrong with a library, a device or a bundle."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, trial, arguments), daemon=True)
    try:
        process.start()
    except OSError as error:  # no memory, or no process is left
        return Answer((), f"no process can be started to try it: {said(error)}")
    theirs.close()
    with ours:
        try:
            answer: Answer = ours.recv()
        except (EOFError, OSError):
            process.join()
            answer = Answer((), ended(process.exitcode or 0, "the process that tried it"))
    process.join()
    return answer


def _answer(connection: Connection, trial: Callable[..., tuple[str, ...]], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who is asked to stop ends this process, too
    try:
        answer = Answer(trial(*arguments), None)
    except BaseException as error:
        if not is_fault(error):
            raise
        answer = Answer((), str(error) if isinstance(error, SpecBeamError) else said(error))
    connection.send(answer)


def ended(code: int, process: str) -> str:
    """Why a process has not done its work, by the status that it ended with; process: what messages call it."""
    if code >= 0:
        return f"{process} ended itself, with status {code}"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        return f"{process} was ended by {name}" + (f": {LIKELY[name]}" if name in LIKELY else "")
    return f"{process} was ended by signal {-code}"


def try_backend(backend: str, device: str) -> tuple[str, ...]:
    """Use a backend's library on a device: what it offers. Raises `EngineError` where it cannot be used."""
    found = find_backend(backend, device)
    found.ready()
    if not found.runs_here:
        _look_for_gpu(", ".join(found.versions().values()))
    return _run_graph(device) if backend == "onnxruntime" else tuple(found.versions().values())


def _look_for_gpu(version: str) -> None:
    """Raise `EngineError` where a backend that builds without a GPU has none to run on."""
    from ..cuda import Device

    try:
        Device().close()
    except EngineError as error:
        raise EngineError(f"It builds engines here ({version}); they run where there is a GPU. {error}") from error


def _run_graph(device: str) -> tuple[str, ...]:
    """Let ONNX Runtime compute something; the names of its providers."""
    import onnxruntime as ort  # type: ignore[import-untyped]

    from ..onnxruntime.cpu import open_session, session_options

    with TemporaryDirectory() as folder:
        graph = Path(folder) / "negate.onnx"
        graph.write_bytes(NEGATE)
        session = open_session(graph, device, session_options(1))
    (got,) = session.run(None, {"x": np.ones(1, np.float32)})
    if got != [-1]:
        raise EngineError(f"ONNX Runtime {ort.__version__} on {device} computes {got[0]} where -1 was expected.")
    return tuple(ort.get_available_providers())


def try_engine(path: Path, name: str, threads: int) -> tuple[str, ...]:
    """Open all graphs of an engine, and let each answer a prompt and a node behind it: the graphs' roles.

    Raises `SpecBeamError` where one cannot be opened, fails, or gives what is no log-probability.
    """
    bundle = open_bundle(path)
    roles: tuple[Role, ...] = ("target",) if bundle.manifest.draft is None else ("target", "draft")
    for role in roles:
        engine = load_engine(bundle, role, name, threads=threads, scoring=bundle.manifest.scoring)
        plan = bundle.engine_facts(name).roles[role].tensorrt
        _call(engine, bundle, role, name, None if plan is None else plan.limits)
    return roles


def _call(engine: Engine, bundle: ModelBundle, role: Role, name: str, limits: Limits | None) -> None:
    facts = bundle.facts(role)
    prompt = min(PROMPT, facts.context - 1, PROMPT if limits is None else limits.max_prompt)
    begun = begin(engine, random_tokens(facts, 0, prompt, 1))
    first = begun.logprobs.copy()
    node = call(random_tokens(facts, prompt, 1, 1), begun.slots, begun.cache, rows=1)
    for logprobs in (first, engine.forward(node, begun.cache)):
        if logprobs.shape != (1, 1, bundle.manifest.columns) or not are_logprobs(logprobs):
            raise EngineError(
                f"The {role} of {name} gives NaN or infinity as a log-probability. Run: {bundle.rebuild(name)}"
            )
