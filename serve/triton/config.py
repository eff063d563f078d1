"""config.pbtxt: what Triton itself is told of a model."""

from ..protocol.tensors import OUTPUTS, TensorKind
from .inputs import MODEL_INPUTS
from .settings import KEY, TritonSettings, written_settings

CONFIG = "config.pbtxt"
MARK = f'key: "{KEY}"'  # by which our configurations are known
ENVIRONMENT = "environment"  # folder of the recipe, in the model's
MADE = "venv"  # in it: what the recipe makes
TYPES = {"BYTES": "TYPE_STRING", "INT64": "TYPE_INT64", "FP32": "TYPE_FP32"}
HEAD = """\
# Written by specbeam package-triton, and yours to edit: it is kept when another version is packaged.
name: "{name}"
backend: "python"
max_batch_size: 0  # a request holds one history or several, and requests share calls whatever Triton gathers
version_policy {{ latest {{ num_versions: 1 }} }}
instance_group [ {{ count: {instances} kind: {kind} }} ]
"""


def config_text(name: str, settings: TritonSettings, *, instances: int, kind: str) -> str:
    """The text of a model's config.pbtxt; kind: of the instances, KIND_CPU or KIND_GPU."""
    parts = [HEAD.format(name=name, instances=instances, kind=kind)]
    parts += [_tensors("input", MODEL_INPUTS, " optional: true"), _tensors("output", OUTPUTS)]
    parts.append(_parameter("EXECUTION_ENV_PATH", f"$$TRITON_MODEL_DIRECTORY/{ENVIRONMENT}/{MADE}"))
    parts.append(_parameter(KEY, written_settings(settings)))
    return "".join(parts)


def _tensors(word: str, tensors: dict[str, TensorKind], more: str = "") -> str:
    lines = [
        f'  {{ name: "{name}" data_type: {TYPES[kind.datatype]} dims: [ {", ".join(map(str, kind.shape))} ]{more} }}'
        for name, kind in tensors.items()
    ]
    return f"{word} [\n" + ",\n".join(lines) + "\n]\n"


def _parameter(key: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"parameters {{ key: \"{key}\" value {{ string_value: '{escaped}' }} }}\n"
