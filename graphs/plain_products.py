"""Gemm as MatMul and Add: one operator for a token's product with a weight, whatever an architecture writes."""

import onnx_ir as ir

from .write import Writer, infer, replace_node


def plain_products(model: ir.Model) -> None:
    """Write every Gemm that is a product and a bias out, in place: GPT-2's layers are some.

    What quantizes graphs, narrows them or reads them then knows these weights as it knows all others.
    """
    infer(model)
    for node in list(model.graph):
        values = [value for value in node.inputs if value is not None]
        if node.op_type != "Gemm" or len(values) != 3 or (dtype := values[0].dtype) is None or not _plain(node):
            continue
        write = Writer(model.graph, node, f"{node.name}.plain")
        weight = values[1]
        if "transB" in node.attributes and node.attributes["transB"].as_int():
            weight = write.op("Transpose", [weight], dtype, perm=[1, 0])
        replace_node(node, write.op("Add", [write.op("MatMul", [values[0], weight], dtype), values[2]], dtype))


def _plain(node: ir.Node) -> bool:
    """Whether a Gemm neither scales nor turns what it multiplies."""
    scales = [node.attributes[name].as_float() for name in ("alpha", "beta") if name in node.attributes]
    turned = "transA" in node.attributes and node.attributes["transA"].as_int()
    return not turned and all(scale == 1 for scale in scales)
