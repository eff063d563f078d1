"""Gemm as MatMul and Add: one operator for a token's product with a weight, whatever an architecture writes."""

import onnx_ir as ir

from .write import Writer, infer, replace_node


def plain_products(model: ir.Model) -> None:
    """Write every Gemm that is a product and a bias out, in place: GPT-2's layers are some.

    What quantizes graphs, narrows them or reads them then knows these weights as it knows all others.
    """
    infer(model)
    for node in list(model.graph):
        if (
            node.op_type != "Gemm"
            or node.domain
            or any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta"))
            or node.attributes.get_int("transA", 0)
        ):
            continue
        values = [value for value in node.inputs if value is not None]
        dtype = values[0].dtype
        if len(values) != 3 or dtype is None:
            continue
        write = Writer(model.graph, node, f"{node.name}.plain")
        weight = values[1]
        if node.attributes.get_int("transB", 0):
            weight = write.op("Transpose", [weight], dtype, perm=[1, 0])
        replace_node(node, write.op("Add", [write.op("MatMul", [values[0], weight], dtype), values[2]], dtype))
