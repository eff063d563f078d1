"""Whether a loaded graph is one of the contract (docs/design.md, "The graph's contract"), before it is called."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import onnxruntime as ort  # type: ignore[import-untyped]

from ..catalog.errors import EngineError
from .bundle.facts import ModelFacts, Precision

Axes = tuple[int | str, ...]  # a number, or the name of what may be any
Values = Mapping[str, tuple[str, Axes]]  # name to ONNX Runtime's name of the type, and axes

INT64, FLOAT = "tensor(int64)", "tensor(float)"
TYPES: Mapping[str, str] = {"fp32": FLOAT, "fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}
REMEDY = "Build the engine again, or export again if it is the bundle's own graph."


def check_model(
    session: ort.InferenceSession, graph: Path, facts: ModelFacts, cache: Precision, columns: int | None, *, dense: bool
) -> None:
    """Raise `EngineError` unless a graph takes and gives what one of this model does.

    columns: of `logprobs`; None: any number. dense: it has a mask, not indices (of any fixed path).
    """
    calls: Axes = ("batch", "sequence")
    inputs: dict[str, tuple[str, Axes]] = {"input_ids": (INT64, calls), "position_ids": (INT64, calls)}
    if dense:
        inputs["attention_mask"] = TYPES[cache], ("batch", 1, "sequence", "past+sequence")
    else:
        path = next((v.shape[-1] for v in session.get_inputs() if v.name == "visible_slots" and v.shape), None)
        if not isinstance(path, int):
            raise EngineError(
                f"{graph} has no input visible_slots of a fixed last axis, which an engine on a device needs. "
                "Build the engine again."
            )
        inputs |= {"visible_below": (INT64, calls), "visible_slots": (INT64, (*calls, path))}
    inputs["logit_rows"] = INT64, ("batch", "rows")
    if facts.slot_positions and dense:  # otherwise the graph makes them of what it is told of slots
        inputs["slot_positions"] = INT64, ("batch", "past+sequence")
    own = next((v.shape[-1] for v in session.get_outputs() if v.name == "logprobs" and v.shape), None)
    if not isinstance(own, int):
        raise EngineError(f"{graph} has no output logprobs of a fixed last axis. {REMEDY}")
    outputs: dict[str, tuple[str, Axes]] = {"logprobs": (FLOAT, ("batch", "rows", own if columns is None else columns))}
    inputs |= _cache("past_key_values", facts, cache, ("batch", facts.kv_heads, "past", facts.head_dim))
    outputs |= _cache("present", facts, cache, ("batch", facts.kv_heads, "past+sequence", facts.head_dim))
    if facts.encoder is not None:
        inputs |= {"prompt_lengths": (INT64, ("batch",)), **_read(facts, cache)}
    _check(session, graph, inputs, outputs)


def check_encoder(session: ort.InferenceSession, graph: Path, facts: ModelFacts, cache: Precision) -> None:
    """Raise `EngineError` unless a graph reads prompts for this model's decoder."""
    inputs: dict[str, tuple[str, Axes]] = {"input_ids": (INT64, ("batch", "prompt"))}
    _check(session, graph, inputs | {"prompt_lengths": (INT64, ("batch",))}, _read(facts, cache))


def check_gather(session: ort.InferenceSession, graph: Path, facts: ModelFacts, cache: Precision) -> None:
    """Raise `EngineError` unless a graph compacts the cache of this model; see `graphs.gather`."""
    inputs: dict[str, tuple[str, Axes]] = {"index": (INT64, ("kept",))}
    inputs |= _cache("past_key_values", facts, cache, ("slots", "head_dim"))
    _check(session, graph, inputs, _cache("present", facts, cache, ("kept", "head_dim")))


def _read(facts: ModelFacts, cache: Precision) -> dict[str, tuple[str, Axes]]:
    return _cache("read_key_values", facts, cache, ("batch", facts.kv_heads, "prompt", facts.head_dim))


def _cache(prefix: str, facts: ModelFacts, cache: Precision, axes: Axes) -> dict[str, tuple[str, Axes]]:
    return {f"{prefix}.{name}": (TYPES[cache], axes) for name in facts.cache_names}


def _check(session: ort.InferenceSession, graph: Path, inputs: Values, outputs: Values) -> None:
    for kind, values, expected in (
        ("input", session.get_inputs(), inputs),
        ("output", session.get_outputs(), outputs),
    ):
        got = {value.name: (value.type, tuple(value.shape)) for value in values}
        fault = next(_faults(got, expected), None)
        if fault is not None:
            raise EngineError(f"{graph} is no graph of this model: the {kind} {fault}. {REMEDY}")


def _faults(got: Values, expected: Values) -> Iterator[str]:
    for name in sorted(expected.keys() - got.keys()):
        yield f"{name} is missing"
    for name in sorted(got.keys() - expected.keys()):
        yield f"{name} is not expected"
    for name, (kind, axes) in expected.items():
        own, shape = got[name]
        if own != kind or len(shape) != len(axes) or not all(map(_fits, shape, axes)):
            yield f"{name} is {own} {list(shape)}, expected {kind} {list(axes)}"


def _fits(got: int | str | None, expected: int | str) -> bool:
    """Whether an axis may be what it must be able to be: a graph need not say the number of a fixed one."""
    return got == expected if isinstance(got, int) else True
