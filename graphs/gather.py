"""The graph that compacts a cache where it lies: what `KVCache.keep` runs on a device."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from ..catalog.errors import EngineError
from ..catalog.files import whole_file

OPSET, IR_VERSION = 18, 10  # old enough for every ONNX Runtime that opens the graphs beside it
TYPES: dict[str, int] = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def write_gather(path: Path, layers: int, precision: str) -> None:
    """Write the graph that takes chosen rows of every key and value of a model of `layers` layers.

    Inputs `index` int64 [kept] and, of every layer, `past_key_values.{i}.key` and `.value` [slots, head_dim]:
    a cache [batch, kv_heads, past, head_dim] read as one row a slot; outputs `present.{i}.key` and `.value`
    [kept, head_dim]. One plain Gather a tensor: whole rows are copied, and no index is as large as the data.
    """
    if precision not in TYPES:
        raise EngineError(f"A cache holds {', '.join(TYPES)}; got {precision!r}.")
    kind = TYPES[precision]
    names = [f"{i}.{part}" for i in range(layers) for part in ("key", "value")]
    inputs = [helper.make_tensor_value_info("index", TensorProto.INT64, ["kept"])]
    inputs += [helper.make_tensor_value_info(f"past_key_values.{n}", kind, ["slots", "head_dim"]) for n in names]
    outputs = [helper.make_tensor_value_info(f"present.{n}", kind, ["kept", "head_dim"]) for n in names]
    nodes = [helper.make_node("Gather", [f"past_key_values.{n}", "index"], [f"present.{n}"], axis=0) for n in names]
    model = helper.make_model(
        helper.make_graph(nodes, "gather", inputs, outputs),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    with whole_file(path, replace=True) as file:
        file.write(model.SerializeToString())
