"""The matrix products of a graph that quantization speaks of: those of an activation with a weight."""

import onnx_ir as ir


def weighted_matmuls(model: ir.Model) -> list[ir.Node]:
    """MatMul nodes whose second input is a stored matrix, or the transpose of one, in the graph's order."""
    return [node for node in model.graph if node.op_type == "MatMul" and _is_weight(node.inputs[1])]


def _is_weight(value: ir.Value | None) -> bool:
    if value is None:
        return False
    producer = value.producer()
    if producer is not None and producer.op_type == "Transpose":
        value = producer.inputs[0]
    return value is not None and value.const_value is not None and len(value.const_value.shape) == 2


def activations(model: ir.Model) -> list[str]:
    """Names of the values that the weighted products take, each once, in the graph's order."""
    inputs = [node.inputs[0] for node in weighted_matmuls(model)]
    return list(dict.fromkeys(str(value.name) for value in inputs if value is not None))
