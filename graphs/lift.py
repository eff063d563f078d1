"""A half-precision graph in float32: the same arithmetic without the rounding, which any CPU can run."""

from pathlib import Path

import numpy as np
import onnx_ir as ir

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def lift_graph(source: Path, destination: Path) -> None:
    """Write a copy of a graph in which every half-precision type and weight is float32.

    Weights go to `destination` + ".data". ONNX Runtime's CPU provider has no bfloat16 MatMul, and
    inserts casts around every float16 node; the lifted graph checks the export apart from both.
    """
    model = ir.load(source)
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
    ir.save(model, destination, external_data=f"{destination.name}.data")


def _lifted(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)
