"""Quantized copies of a float32 graph, by ONNX Runtime's quantizers: integers where a weight is multiplied."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData  # type: ignore[import-untyped]
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer  # type: ignore[import-untyped]
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer  # type: ignore[import-untyped]

from ..catalog.errors import EngineError, OptionError
from ..catalog.temporaries import temporary_directory
from ..engines.backend import WeightForm
from ..graphs.files import EXTERNAL_BYTES, load_graph, save_graph
from ..graphs.fold import fold_weights
from .matmuls import weighted_matmuls
from .quiet import quiet
from .ranges import Range, Ranges
from .weights import dequantize_weights

Method = Literal["static", "dynamic", "weight8", "weight4"]
BITS: dict[str, int] = {"weight8": 8, "weight4": 4}  # of the methods that leave activations as they are
BLOCK = {8: 128, 4: 32}  # weights of a column that share a scale, by their bits


def quantize(
    graph: Path,
    output: Path,
    method: Method,
    *,
    ranges: Ranges | None = None,
    exclude: Sequence[str] = (),
    symmetric: bool = True,
    weights: WeightForm = "operator",
) -> None:
    """Write a copy of an exported float32 graph whose products with weights are computed in integers, or read them.

    static: activations by calibrated `ranges`, weights by column, as QuantizeLinear and DequantizeLinear around
    the products, which engines fuse. symmetric: int8 activations without zero points, the only kind that TensorRT
    takes; otherwise uint8 with zero points, the only kind that ONNX Runtime's CPU kernels take without detours.
    dynamic: the same, the range of every activation taken when it is there. weight8, weight4: weights alone, by
    ONNX Runtime's own operator (in blocks), or as `dequantize_weights` writes them. exclude: names of nodes that stay
    as they are.

    `output` and, for large graphs, `output` + ".data" are written whole or not at all. Raises `OptionError` for
    what cannot be combined, `EngineError` for graphs that cannot be quantized.
    """
    _check(method, ranges)
    model = load_graph(graph)
    fold_weights(model)
    products = weighted_matmuls(model)
    _check_graph(graph, model, products, exclude)
    others = {node.name for node in model.graph if node.op_type == "MatMul"} - {node.name for node in products}
    exclude = [*exclude, *sorted(str(name) for name in others)]  # attention that is written out, experts: no matrices
    with temporary_directory(output) as folder:
        result = folder / "quantized" / output.name
        result.parent.mkdir()
        if method in BITS and weights == "dequantize":
            dequantize_weights(model, BITS[method], exclude)
            save_graph(model, result, external_bytes=EXTERNAL_BYTES)
        else:
            folded = folder / "model.onnx"
            save_graph(model, folded)
            large = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) > EXTERNAL_BYTES
            del model
            needed = None if ranges is None else _needed(products, exclude, ranges)
            with quiet():
                _by_onnxruntime(folded, result, method, needed, exclude, symmetric, large)
        for file in sorted(result.parent.iterdir(), reverse=True):  # the weights before the graph that names them
            os.replace(file, output.parent / file.name)


def _by_onnxruntime(
    graph: Path,
    output: Path,
    method: Method,
    ranges: dict[str, Range] | None,
    exclude: Sequence[str],
    symmetric: bool,
    large: bool,
) -> None:
    if method == "static":
        assert ranges is not None
        _static(graph, output, ranges, exclude, symmetric, large)
    elif method == "dynamic":
        _dynamic(graph, output, exclude, large)
    else:
        _weights(graph, output, BITS[method], exclude, large)


def _check(method: str, ranges: Ranges | None) -> None:
    if method not in get_args(Method):
        raise OptionError(f"got the method {method!r}; expected one of: {', '.join(get_args(Method))}.")
    if (ranges is None) == (method == "static"):
        got = "no ranges" if ranges is None else "ranges"
        raise OptionError(f"got {got} for {method} quantization; expected them for static quantization, and only then.")


def _check_graph(graph: Path, model: ir.Model, products: Sequence[ir.Node], exclude: Sequence[str]) -> None:
    weights = {node.inputs[1].dtype for node in products if node.inputs[1] is not None}
    if weights != {ir.DataType.FLOAT}:
        found = ", ".join(sorted(str(dtype) for dtype in weights)) or "none"
        raise EngineError(f"{graph} has weights of type {found}; expected float32. Lift the graph first.")
    unknown = set(exclude) - {node.name for node in model.graph}
    if unknown:
        raise OptionError(f"{graph} has no nodes {', '.join(sorted(unknown)[:5])}, which were to stay as they are.")


def _needed(products: Sequence[ir.Node], exclude: Sequence[str], ranges: Ranges) -> dict[str, Range]:
    """The ranges of the activations to be quantized."""
    inputs = (node.inputs[0] for node in products if node.name not in exclude)
    names = list(dict.fromkeys(str(value.name) for value in inputs if value is not None))
    missing = [name for name in names if name not in ranges.tensors]
    if missing:
        raise EngineError(
            f"The ranges lack {len(missing)} of {len(names)} activations (such as {missing[0]}): they were measured on "
            "another graph. Calibrate again."
        )
    return {name: ranges.tensors[name] for name in names}


def _static(
    graph: Path, output: Path, ranges: dict[str, Range], exclude: Sequence[str], symmetric: bool, large: bool
) -> None:
    measured = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    options = {
        "ActivationSymmetric": symmetric,
        "WeightSymmetric": True,
        "MatMulConstBOnly": True,
        "OpTypesToExcludeOutputQuantization": ["MatMul"],
        "DedicatedQDQPair": symmetric,  # a pair for every product, as TensorRT's own tools write them
        "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
    }
    quantizer = QDQQuantizer(
        load_model_with_shape_infer(graph), True, False, QuantType.QInt8,
        QuantType.QInt8 if symmetric else QuantType.QUInt8, TensorsData(CalibrationMethod.MinMax, measured),
        [], list(exclude), ["MatMul"], options,
    )  # fmt: skip
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(output), large)


def _dynamic(graph: Path, output: Path, exclude: Sequence[str], large: bool) -> None:
    # Left to itself it takes the standard Attention for its own operator of that name, and the graph is invalid.
    quantize_dynamic(
        graph, output, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8,
        nodes_to_exclude=list(exclude), use_external_data_format=large,
    )  # fmt: skip


def _weights(graph: Path, output: Path, bits: int, exclude: Sequence[str], large: bool) -> None:
    # Not above: importing it configures the process's logging, which `quiet` undoes.
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer  # type: ignore[import-untyped]

    quantizer = MatMulNBitsQuantizer(
        onnx.load(graph), bits=bits, block_size=BLOCK[bits], is_symmetric=bits == 8, accuracy_level=4,
        nodes_to_exclude=list(exclude),
    )  # fmt: skip
    quantizer.process()
    quantizer.model.save_model_to_file(str(output), large)
