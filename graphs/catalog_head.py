"""A head with the catalog's columns alone: what `constrained` scoring needs of a vocabulary of many more rows.

Log-softmax over the catalog's columns differs from that over all rows by one number a row, which cancels where a node's
children are renormalised. The transform takes a graph in ONNX Runtime's optimised form, and speaks protobuf: the
weights that it leaves alone stay where they lie beside that graph, packed copies (of which onnx-ir knows nothing) too.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto

from ..catalog.files import whole_file

# Operand: its axis of columns, where the result has them last. Operands that are not named have none.
COLUMNS: Mapping[str, Mapping[int, int]] = {
    "Add": {0: -1, 1: -1},
    "Cast": {0: -1},
    "DynamicQuantizeMatMul": {1: -1, 2: -1, 3: -1, 4: -1},
    "FusedMatMul": {1: -1},  # a product that scales
    "MatMul": {1: -1},
    "MatMulIntegerToFloat": {1: -1, 3: -1, 5: -1, 6: -1},
    "MatMulNBits": {1: 0, 2: 0, 3: 0, 5: 0},
}

TURNED = ("transB", "transBatchB")  # operands of a product, read otherwise

PLACE = ("location", "offset", "length")  # of a weight; a packed copy's is said beside it


def write_catalog_head(graph: Path, destination: Path, *, rows: int) -> bool:
    """Write a graph like `graph` whose head has the catalog's columns alone; whether that could be done.

    graph: one of the contract, optimised; rows: of its vocabulary. `logprobs` becomes log-softmax over the columns.
    `destination` lies in the same folder and shares the weights beside `graph`; the head's new ones are inside it.
    Nothing is written where what leads to `logprobs` is not known to work column by column.
    """
    model = onnx.load(graph, load_external_data=False)
    if not _Columns(model.graph, graph.parent, rows).narrowed():
        return False
    with whole_file(destination, replace=False) as file:
        file.write(model.SerializeToString())
    return True


class _Columns:
    """A graph on its way to a head with fewer columns; changed in place, and of no use where that fails."""

    def __init__(self, graph: onnx.GraphProto, folder: Path, rows: int) -> None:
        self._graph, self._folder, self._rows = graph, folder, rows
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}
        self._uses = Counter(name for node in graph.node for name in node.input)
        self._columns = np.empty(0, np.int64)

    def narrowed(self) -> bool:
        """Let the columns be picked from the head's weights, not from the log-probabilities of all rows."""
        pick = self._makers.get("logprobs")
        if pick is None or pick.op_type != "Gather":
            return False
        softmax, indices = self._makers.get(pick.input[0]), self._stored.get(pick.input[1])
        if softmax is None or softmax.op_type != "LogSoftmax" or indices is None or self._uses[softmax.output[0]] > 1:
            return False
        self._columns = self._array(indices)
        if not self._narrow(softmax.input[0]):
            return False
        softmax.output[0] = "logprobs"
        self._graph.node.remove(pick)
        self._tidy()
        return True

    def _narrow(self, name: str) -> bool:
        """Let the node that makes a value, which has the columns last, make those of the catalog alone."""
        node = self._makers.get(name)
        operands = {} if node is None else COLUMNS.get(node.op_type, {})
        if node is None or not operands or self._uses[name] > 1:
            return False
        if any(attribute.name in TURNED and attribute.i for attribute in node.attribute):
            return False
        for operand, axis in operands.items():
            given = node.input[operand] if operand < len(node.input) else ""
            if given in self._stored:
                node.input[operand] = narrow = self._sliced(self._stored[given], axis)
                if not narrow:
                    return False
            elif given and not self._narrow(given):
                return False
        for attribute in node.attribute:
            if attribute.name == "N":
                attribute.i = len(self._columns)
        return True

    def _sliced(self, tensor: TensorProto, axis: int) -> str:
        """A stored weight at the columns, by name; itself where it is one number for all, none where it is neither."""
        if all(size == 1 for size in tensor.dims):
            return tensor.name
        if tensor.dims[axis] != self._rows:
            return ""
        name = f"{tensor.name}.catalog"
        if name not in self._stored:
            columns = np.take(self._array(tensor), self._columns, axis=axis)
            self._stored[name] = ir.to_proto(ir.tensor(columns, ir.DataType(tensor.data_type), name=name))
            self._graph.initializer.append(self._stored[name])
        return name

    def _array(self, tensor: TensorProto) -> NDArray[Any]:
        """A stored tensor; mapped where it lies beside the graph."""
        plain = TensorProto()
        plain.CopyFrom(tensor)
        del plain.external_data[:]
        plain.external_data.extend(entry for entry in tensor.external_data if entry.key in PLACE)
        array: NDArray[Any] = ir.serde.deserialize_tensor(plain, self._folder).numpy()
        return array

    def _tidy(self) -> None:
        """Drop weights that nobody reads any more, and shapes that were noted of what has become narrower."""
        read = {name for node in self._graph.node for name in node.input}
        for tensor in [tensor for tensor in self._graph.initializer if tensor.name not in read]:
            self._graph.initializer.remove(tensor)
        del self._graph.value_info[:]
