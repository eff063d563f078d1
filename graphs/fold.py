"""Transposed weights stored as they are used: quantizers want a constant second input of MatMul."""

import onnx_ir as ir

from .write import add_weight, laid_out, lazy_tensor


def fold_weights(model: ir.Model) -> None:
    """Make every Transpose of an initializer an initializer of its own, in place.

    A weight that nothing else reads is dropped; an embedding that a tied head reads stays, so that such a
    matrix is stored in both layouts. The new tensors are computed when they are read.
    """
    graph = model.graph
    for node in list(graph):
        weight = node.inputs[0] if node.op_type == "Transpose" else None
        if weight is None or weight.const_value is None:
            continue
        perm = _permutation(node, len(weight.const_value.shape))
        name = f"{weight.name}.transposed" + "".join(f".{axis}" for axis in perm)
        turned = graph.initializers.get(name) or add_weight(graph, _transposed(weight.const_value, perm, name))
        node.outputs[0].replace_all_uses_with(turned, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        if not weight.uses() and weight.name is not None:
            del graph.initializers[weight.name]


def _permutation(node: ir.Node, rank: int) -> tuple[int, ...]:
    perm = node.attributes.get("perm")
    return tuple(perm.as_ints()) if perm else tuple(reversed(range(rank)))


def _transposed(tensor: ir.TensorProtocol, perm: tuple[int, ...], name: str) -> ir.LazyTensor:
    shape = [tensor.shape.numpy()[axis] for axis in perm]
    return lazy_tensor(lambda: laid_out(tensor.numpy().transpose(perm)), tensor.dtype, shape, name)
