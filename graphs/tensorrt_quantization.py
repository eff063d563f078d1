"""TensorRT's rules of explicit quantization: where Q and DQ may stand, and with which scales and zero points."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from . import tensorrt_ops as ops
from .tensorrt_values import Problem, either, is_constant, operand, type_name


def quantization_problems(node: ir.Node) -> Iterator[Problem]:
    """Why TensorRT refuses a QuantizeLinear or a DequantizeLinear (or may: "unknown")."""
    data, scale = operand(node, 0), operand(node, 1)
    if data is None or scale is None:
        return
    yield from _scale(scale)
    yield from _zero_point(node)
    tensor = ir.convenience.get_const_tensor(scale)
    channels = None if tensor is None or tensor.size == 1 else tensor
    yield from (_quantized if node.op_type == "QuantizeLinear" else _dequantized)(node, data, channels)


def _quantized(node: ir.Node, data: ir.Value, channels: ir.TensorProtocol | None) -> Iterator[Problem]:
    """Q straight before DQ, one scale for an activation; channels: the scales where there are several."""
    uses = [use.node.op_type for use in node.outputs[0].uses()]
    if node.outputs[0].is_graph_output() or any(name != "DequantizeLinear" for name in uses):
        users = either(sorted({name for name in uses if name != "DequantizeLinear"}) or ["an output of the graph"])
        yield "refused", f"feeds {users}, expected DequantizeLinear alone: Q and DQ come in pairs"
    if channels is not None and not is_constant(data):
        yield "refused", f"has {channels.size} scales on an activation, expected 1: weights alone have one a channel"


def _dequantized(node: ir.Node, data: ir.Value, channels: ir.TensorProtocol | None) -> Iterator[Problem]:
    """DQ behind Q, or behind a weight that is stored as INT8; channels: the scales where there are several."""
    producer = data.producer()
    if not is_constant(data) and (producer is None or producer.op_type != "QuantizeLinear"):
        before = "an input of the graph" if producer is None else producer.op_type
        yield "refused", f"reads {before}, expected QuantizeLinear or a constant weight: Q and DQ come in pairs"
    if channels is not None:
        yield from _channels(node, data, channels)


def _channels(node: ir.Node, data: ir.Value, scale: ir.TensorProtocol) -> Iterator[Problem]:
    """One scale for each output channel of a weight, which in MatMul's second operand is the last axis; or blocks."""
    if data.shape is None:
        yield "unknown", "has scales per channel of data whose shape could not be inferred"
        return
    rank = len(data.shape)
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    axis += rank if axis < 0 else 0
    if len(scale.shape) == rank > max(axis, 1) and type_name(data) == "INT4":
        yield from _blocks(data.shape, scale, axis)
    elif len(scale.shape) != 1 or axis >= rank or data.shape[axis] not in (scale.size, None):
        got = f"has scales {list(scale.shape.numpy())} on axis {axis} of {data.shape}"
        yield "refused", f"{got}, expected one scale for each index of that axis (INT4 alone is quantized in blocks)"
    elif any(use.node.op_type == "MatMul" and use.idx == 1 for use in node.outputs[0].uses()) and axis != rank - 1:
        yield "refused", f"has scales on axis {axis} of MatMul's weight, expected its output channels, axis {rank - 1}"


def _blocks(shape: ir.Shape, scale: ir.TensorProtocol, axis: int) -> Iterator[Problem]:
    """One scale for each of equal blocks along one axis of a weight."""
    sizes, blocks = list(shape), list(scale.shape.numpy())
    size, number = sizes.pop(axis), blocks.pop(axis)
    if sizes != blocks or not number or not isinstance(size, int) or size % number:
        got = f"has scales {list(scale.shape.numpy())} in blocks along axis {axis} of {shape}"
        yield "refused", f"{got}, expected whole blocks, each of the same size: choose one that divides the axis"


def _scale(scale: ir.Value) -> Iterator[Problem]:
    tensor = ir.convenience.get_const_tensor(scale)
    if tensor is None:
        yield "refused", "computes its scale, expected a constant: quantize statically"
    elif not bool(np.all(tensor.numpy().astype(np.float32) > 0)):  # a small FP32 scale may become 0 in FP16
        yield "refused", "has a scale that is not positive: calibrate again, or leave the node in float"


def _zero_point(node: ir.Node) -> Iterator[Problem]:
    zero = operand(node, 2)
    if zero is None:
        stated = node.attributes["output_dtype"].as_int() if "output_dtype" in node.attributes else None
        if node.op_type == "QuantizeLinear" and stated != int(ir.DataType.INT8):
            yield "refused", "has no zero point, which means UINT8 in ONNX and INT8 here: give it an INT8 zero"
        return
    tensor = ir.convenience.get_const_tensor(zero)
    if tensor is None:
        yield "refused", "computes its zero point, expected a constant 0: quantize statically and symmetrically"
    elif type_name(zero) not in ops.OPERATORS["DequantizeLinear"]:
        yield "refused", f"has a zero point of {type_name(zero)}, expected INT8: quantize symmetrically"
    elif bool(np.any(tensor.numpy().astype(np.float32) != 0)):
        yield "refused", "has a zero point that is not 0, expected 0: quantize symmetrically"
