"""What TensorRT made of a graph: its compiled layers, as the builder's log and the engine inspector list them.

Sources: the builder's message "Layers:" at its verbose level (a list a plan, with or without a GPU), and
`IEngineInspector.get_engine_information` (JSON, of an engine that was loaded, so on a GPU alone). Both say more than
names where the plan was built with `ProfilingVerbosity.DETAILED`. TensorRT and TensorRT for RTX write them alike;
versions differ in where they put element types ("Datatype" or "Format/Datatype") and weights (among the constants,
among the inputs, nowhere).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from ...catalog.bounds import DAMAGED
from ...catalog.errors import EngineError
from ...catalog.files import Frozen, whole_file

PLAN, ENCODER_PLAN = "model.plan", "encoder.plan"  # the second reads the prompts of a first that decodes
LAYERS, ENCODER_LAYERS = "layers.json", "encoder-layers.json"  # beside them
SCHEMA = 1
HEADING = "Layers:\n"  # what the builder's message begins with

# TensorRT's names of element types, in the log and in the inspector's texts ("Row major linear FP16 format").
_TYPES = {
    "float": "fp32", "fp32": "fp32", "half": "fp16", "fp16": "fp16", "bfloat16": "bf16", "bf16": "bf16", "fp8": "fp8",
    "fp4": "fp4", "int4": "int4", "int8": "int8", "uint8": "uint8", "int32": "int32", "int64": "int64", "bool": "bool",
}  # fmt: skip
_WORD = re.compile(r"[A-Za-z]+\d*")
_TENSOR = re.compile(
    r"\{ Name: (.*?), (?:Location: \w+, )?Dimensions: \[([-\d,]*)\], (?:[^{}]*?Datatype: ([\w /%=]+))?"
)
_CONSTANT = re.compile(r"_dconst|_constant|_(?:alpha|beta)(?:_myl\d+)?$")  # in the names of inputs that are constants
_LINE = re.compile(r"Name: (.*), LayerType: (\w*)(?:, |$)")
_FIELD = re.compile(r", (Inputs|Constants|Outputs|TacticName|Metadata): ")
_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=\[ONNX Layer: |$)")
_PROFILE = re.compile(r"\[profile (\d+)\]")
_REGION = re.compile(r"_myl(\d+)_\d+$")


class Layer(Frozen, frozen=True):
    """One compiled layer: a kernel, or what stands between kernels."""

    name: str
    kind: str  # TensorRT's LayerType: "gemm", "kgen", ...; "" where it tells names alone
    tactic: str  # of the kernel; "" where it has none, or is compiled when the engine is loaded
    inputs: tuple[str, ...]  # element types of what it reads of other layers: "fp16", "int64", ...
    weights: tuple[str, ...]  # element types of its constants of more than one element
    outputs: tuple[str, ...]  # element types of what it makes
    nodes: tuple[str, ...]  # the graph's nodes that it computes, or a part of which
    profile: Annotated[int, msgspec.Meta(ge=0, le=255)]  # index of the optimization profile that it is for


class _Record(Frozen, frozen=True):
    """layers.json."""

    schema_version: int
    layers: tuple[Layer, ...]


class _Tensor(NamedTuple):
    """What a layer reads or makes."""

    name: str
    kind: str  # its element type, in TensorRT's words
    many: bool  # whether it is more than a number


class _Found(NamedTuple):
    """A layer of unknown profile, and the names of its tensors: those of later profiles say which it is."""

    layer: Layer
    tensors: tuple[str, ...]


def layers_of_log(text: str) -> tuple[Layer, ...]:
    """The layers of the newest list in a builder's log (or in that one message); empty where there is none.

    text: messages at the verbose level. The builder lists nothing with less than `ProfilingVerbosity.DETAILED`; a plan
    for several compute capabilities has one list, which is what their lowest makes of the graph.
    """
    _, heading, listed = text.rpartition(HEADING)
    lines = listed.split("\n\n", 1)[0].splitlines() if heading else []  # inputs and outputs follow the empty line
    return _assigned([_of_line(line) for line in lines if line.strip()])


def layers_of_inspector(text: str) -> tuple[Layer, ...]:
    """The layers that an engine inspector's JSON names (`get_engine_information`); raises `EngineError` for other text.

    A plan that was built without `ProfilingVerbosity.DETAILED` has names alone.
    """
    try:
        said = json.loads(text)
        listed = said["Layers"]
        found = [_of_json(layer if isinstance(layer, dict) else {"Name": str(layer)}) for layer in listed]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(
            f"TensorRT's engine inspector gave text without a list of layers ({type(error).__name__}: {error}); "
            'expected JSON with "Layers". This may be a later version than is known here.'
        ) from error
    return _assigned(found)


def layers_of_engine(trt: Any, engine: Any) -> tuple[Layer, ...]:
    """The layers of a loaded engine (TensorRT's `ICudaEngine`), by its inspector; trt: the engine's module."""
    return layers_of_inspector(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def write_layers(folder: Path, layers: Sequence[Layer], name: str = LAYERS) -> None:
    """Keep what was compiled as layers.json in a graph's folder; name: of an encoder's, `ENCODER_LAYERS`."""
    record = _Record(schema_version=SCHEMA, layers=tuple(layers))
    with whole_file(folder / name, replace=True) as file:
        file.write(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")


def read_layers(folder: Path, rebuild: str, name: str = LAYERS) -> tuple[Layer, ...]:
    """What `write_layers` kept. Raises `EngineError`, naming the command `rebuild`, where it is absent or damaged."""
    path = folder / name
    if not path.is_file():
        raise EngineError(
            f"{path} is absent: what the compiler made of this graph was not kept, since an earlier SpecBeam built the "
            f"engine. Build it again with: {rebuild}"
        )
    try:
        record = msgspec.json.decode(path.read_bytes(), type=_Record)
    except DAMAGED as error:
        raise EngineError(f"{path} is damaged: {error}. Build it again with: {rebuild}") from error
    if record.schema_version != SCHEMA:
        raise EngineError(
            f"{path} has schema version {record.schema_version}, this SpecBeam reads {SCHEMA}. Build it again with: "
            f"{rebuild}"
        )
    return record.layers


def _of_line(line: str) -> _Found:
    """A line of the log: "Name: ..., LayerType: ..., Inputs: [ {...}, ...], ..."; names alone are a name."""
    head = _LINE.match(line)
    if head is None:
        return _Found(_named(line.strip()), ())
    parts = _FIELD.split(line[head.end(2) :])  # "", a field, its text, the next field, ...
    fields = dict(zip(parts[1::2], parts[2::2], strict=True))
    inputs, constants, outputs = (
        [
            _Tensor(name, kind, _many([int(size) for size in sizes.split(",") if size]))
            for name, sizes, kind in _TENSOR.findall(fields.get(field, ""))
        ]
        for field in ("Inputs", "Constants", "Outputs")
    )
    tactic = fields.get("TacticName", "").partition(",")[0]
    return _found(head[1], head[2], tactic, fields.get("Metadata", ""), inputs, constants, outputs)


def _of_json(said: Mapping[str, Any]) -> _Found:
    """A layer of the inspector: the same in JSON."""
    if "LayerType" not in said:
        return _Found(_named(str(said["Name"])), ())
    inputs, constants, outputs = (
        [
            _Tensor(str(tensor.get("Name", "")), _json_type(tensor), _many(tensor.get("Dimensions", [])))
            for tensor in listed
        ]
        for listed in (said.get("Inputs", []), said.get("Constants", []), said.get("Outputs", []))
    )
    if isinstance(kept := said.get("Weights"), dict):  # of a plain layer's own
        constants.append(_Tensor("", str(kept.get("Type", "")), int(kept.get("Count", 0)) > 1))
    tactic, metadata = str(said.get("TacticName", "")), str(said.get("Metadata", ""))
    return _found(str(said["Name"]), str(said["LayerType"]), tactic, metadata, inputs, constants, outputs)


def _found(
    name: str, kind: str, tactic: str, metadata: str,
    inputs: Sequence[_Tensor], constants: Sequence[_Tensor], outputs: Sequence[_Tensor],
) -> _Found:  # fmt: skip
    """A layer, the constants among its inputs where they belong."""
    read = [tensor for tensor in inputs if not _CONSTANT.search(tensor.name)]
    fixed = [tensor for tensor in inputs if _CONSTANT.search(tensor.name)]
    weights = [tensor for tensor in (*fixed, *constants) if tensor.many]
    layer = Layer(
        name=name, kind=kind, tactic=tactic, profile=0,
        nodes=tuple(dict.fromkeys(_NODE.findall(re.sub("\x1e|\x1f", "", metadata).strip()))),
        inputs=_types(read), weights=_types(weights), outputs=_types(outputs),
    )  # fmt: skip
    return _Found(layer, tuple(tensor.name for tensor in (*read, *outputs)))


def _json_type(tensor: Mapping[str, Any]) -> str:
    return str(tensor.get("Datatype") or tensor.get("Format/Datatype") or "")


def _many(sizes: Sequence[int]) -> bool:
    """Whether a constant is more than a number."""
    return any(size != 1 for size in sizes)


def _named(name: str) -> Layer:
    return Layer(name=name, kind="", tactic="", inputs=(), weights=(), outputs=(), nodes=(), profile=0)


def _types(tensors: Sequence[_Tensor]) -> tuple[str, ...]:
    """Element types as they are called here; "?" where TensorRT does not say (for dynamic shapes, some versions)."""
    words = ((_TYPES.get(word.lower()) for word in _WORD.findall(tensor.kind)) for tensor in tensors)
    return tuple(next((name for name in known if name is not None), "?") for known in words)


def _assigned(found: Sequence[_Found]) -> tuple[Layer, ...]:
    """Layers with their profiles. Names of the later profiles' tensors end with "[profile 1]" and the like.

    Of a region that TensorRT compiled as one ("_myl3_5": region 3), some layers have such names, and all are of it.
    """
    marks = [_mark(one) for one in found]
    regions = {region: mark for one, mark in zip(found, marks, strict=True) if mark for region in _region(one)}
    return tuple(
        msgspec.structs.replace(one.layer, profile=mark or next((regions.get(r, 0) for r in _region(one)), 0))
        for one, mark in zip(found, marks, strict=True)
    )


def _mark(found: _Found) -> int:
    """The profile that a layer's name, or its tensors' names, tell; 0 where none does."""
    names = (found.layer.name, *found.tensors)
    return max((int(number) for name in names for number in _PROFILE.findall(name)), default=0)


def _region(found: _Found) -> Iterator[str]:
    yield from _REGION.findall(found.layer.name)
