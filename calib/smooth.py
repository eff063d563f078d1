"""SmoothQuant (Xiao et al. 2023, arXiv 2211.10438): outliers of activations moved into the weights that read them."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from msgspec.structs import replace
from numpy.typing import NDArray

from ..catalog.errors import EngineError, OptionError
from ..graphs.fold import fold_weights
from .matmuls import weighted_matmuls
from .ranges import Ranges

ALPHA = 0.8  # how much of the difficulty goes to the weights: 0 all of it stays, 1 all of it goes
LEAST = 1e-5  # a channel's maximum counts as no less

Array = NDArray[np.float32]


def smooth(model: ir.Model, ranges: Ranges, *, alpha: float = ALPHA) -> Ranges:
    """Divide activations by a factor a channel, and multiply the rows of the weights that read them by it; in place.

    s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), the maxima from the calibration and over all the weights that read
    X. The division costs nothing: it goes into the weight of the norm that makes X (before q, k, v and before
    gate, up), or into the columns of the product that X is elementwise a multiple of (up, before down; also behind a
    ReLU, through which positive factors pass). The model computes what it did. Transposed weights are stored as they
    are used (`fold_weights`).

    Returns the ranges of the smoothed model: what was smoothed gets its largest absolute values; a percentile's
    or entropy's clipping is not known for it. Raises `OptionError` for an `alpha` outside 0..1.
    """
    if not 0 <= alpha <= 1:
        raise OptionError(f"got a smoothing strength of {alpha}; expected 0 to 1.")
    fold_weights(model)
    tensors, channels = dict(ranges.tensors), dict(ranges.channels)
    for scale, readers in list(_smoothable(model)):
        names = list(dict.fromkeys(str(node.inputs[0].name) for node in readers if node.inputs[0] is not None))
        largest = np.maximum(np.max([np.array(channels[name], np.float32) for name in names], axis=0), LEAST)
        weights = [_array(node.inputs[1]) for node in readers]
        if len(largest) != len(weights[0]):
            raise EngineError(
                f"The ranges have {len(largest)} channels for {names[0]}, the graph {len(weights[0])}: they were "
                "measured on another graph. Calibrate again."
            )
        rows = np.maximum(np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0), LEAST)
        factors = (largest**alpha / rows ** (1 - alpha)).astype(np.float32)
        _store(scale, _array(scale) / factors)  # of a norm [K], of a product [N, K]: the last axis
        for node, weight in zip(readers, weights, strict=True):
            _store(node.inputs[1], weight * factors[:, None])
        for name in names:
            smoothed = np.array(channels[name], np.float32) / factors
            channels[name] = tuple(smoothed.tolist())
            tensors[name] = (-float(smoothed.max()), float(smoothed.max()))
    return replace(ranges, tensors=tensors, channels=channels)


def _smoothable(model: ir.Model) -> Iterator[tuple[ir.Value, list[ir.Node]]]:
    """Weights that absorb the division of an activation which only products read, and those products."""
    products = weighted_matmuls(model)
    for activation in dict.fromkeys(node.inputs[0] for node in products):
        scale = None if activation is None else _absorber(activation)
        if activation is None or scale is None:
            continue
        readers = list(_readers(activation))
        if all(node in products for node in readers) and all(
            _alone(value) for value in (scale, *(node.inputs[1] for node in readers))
        ):
            yield scale, readers


def _readers(activation: ir.Value) -> Iterator[ir.Node]:
    """The nodes that compute with an activation, or with rows that are picked of it."""
    for use in activation.uses():
        if use.node.op_type in ("Flatten", "Gather") and use.idx == 0:
            yield from _readers(use.node.outputs[0])
        else:
            yield use.node


def _absorber(activation: ir.Value) -> ir.Value | None:
    """The stored weight whose last axis scales the activation's channels."""
    producer = activation.producer()
    if producer is None or activation.is_graph_output():
        return None
    if producer.op_type == "RMSNormalization":
        return producer.inputs[1]
    if producer.op_type not in ("Mul", "Relu"):
        return None
    for value in producer.inputs:
        if value is not None and value.const_value is not None and len(value.const_value.shape) == 1:
            return value  # the weight of a norm in its parts
    for value in producer.inputs:
        product = None if value is None else value.producer()
        if product is not None and product.op_type == "MatMul" and value is not None and len(value.uses()) == 1:
            return product.inputs[1]
    return None


def _alone(value: ir.Value | None) -> bool:
    """Whether a value is a stored float32 tensor that one node reads."""
    if value is None or value.const_value is None or len(value.uses()) != 1 or value.is_graph_output():
        return False
    return value.const_value.dtype == ir.DataType.FLOAT


def _array(value: ir.Value | None) -> Array:
    assert value is not None
    assert value.const_value is not None
    array: Array = value.const_value.numpy()
    return array


def _store(value: ir.Value | None, array: Array) -> None:
    assert value is not None
    value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
