"""A half-precision graph in float32: the same arithmetic without the rounding, which any CPU can run."""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from .files import load_graph, save_graph
from .write import lazy_tensor

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def lift_graph(source: Path, destination: Path) -> None:
    """Write a copy of a graph in which every half-precision type and weight is float32.

    ONNX Runtime's CPU provider has no bfloat16 MatMul, and inserts casts around every float16 node; the
    lifted graph checks the export apart from both. Weights are widened when they are saved.
    """
    model = load_graph(source)
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        if value.dtype in HALVES:
            value.dtype = ir.DataType.FLOAT
        if value.const_value is not None and value.const_value.dtype in HALVES:
            value.const_value = _lifted(value.const_value)
    for node in model.graph:
        for output in node.outputs:
            if output.dtype in HALVES:
                output.dtype = ir.DataType.FLOAT
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in HALVES:
                node.attributes[name] = ir.AttrTensor(name, _lifted(attribute.as_tensor()))
            if node.op_type == "Cast" and name == "to" and attribute.as_int() in [int(half) for half in HALVES]:
                node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
    save_graph(model, destination)


def _lifted(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    shape = tensor.shape.numpy()
    return lazy_tensor(lambda: tensor.numpy().astype(np.float32), ir.DataType.FLOAT, shape, tensor.name)
