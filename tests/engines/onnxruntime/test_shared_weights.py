"""Large weights of CPU engines lie beside the graph in the form that is read: what is opened maps them."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from commands import good
from specbeam.engines.onnxruntime import backend
from specbeam.engines.onnxruntime.backend import SHARED_BYTES, optimise
from specbeam.runtime import Recommender
from tiny_bundle import ENGINE, Tiny

SIZE = 1600  # rows and columns of a matrix that is large enough
READS = """
import sys
import numpy as np
import onnxruntime as ort
from specbeam.engines.onnxruntime.cpu import open_session, session_options
from pathlib import Path

session = open_session(Path(sys.argv[1]), "cpu", session_options(1))
(result,) = session.run(None, {"x": np.ones((4, int(sys.argv[2])), np.float32)})
print(float(result.sum()))
print(open("/proc/self/smaps").read())
"""


def product(folder: Path, *, size: int = SIZE, before: int = 0) -> tuple[Path, float]:
    """A graph of one product, and the sum of its result for four rows of ones.

    before: numbers of a weight that is stored before the product's; a zero of it is added.
    """
    weights = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", size])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", size])
    stored, nodes = [numpy_helper.from_array(weights, "w")], [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if before:
        stored.insert(0, numpy_helper.from_array(np.zeros(before, np.float32), "table"))
        nodes = [
            helper.make_node("ArgMax", ["x"], ["place"], axis=1, keepdims=1),
            helper.make_node("Gather", ["table", "place"], ["zero"]),
            helper.make_node("Add", ["x", "zero"], ["same"]),
            helper.make_node("MatMul", ["same", "w"], ["y"]),
        ]
    graph = helper.make_graph(nodes, "product", [rows], [result], stored)
    folder.mkdir()
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "model.onnx"
    )
    return folder / "model.onnx", 4 * float(weights.astype(np.float64).sum())


def test_processes_read_the_file_s_own_pages(tmp_path: Path) -> None:
    source, total = product(tmp_path / "source")
    graph = tmp_path / "engine" / "model.onnx"
    optimise(source, graph, "cpu", 1)
    data = graph.with_name("model.onnx.data")
    assert SIZE * SIZE * 4 > SHARED_BYTES
    assert data.stat().st_size >= 2 * SIZE * SIZE * 4  # as it was, and as it is read
    done = subprocess.run([sys.executable, "-c", READS, str(graph), str(SIZE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, _, maps = done.stdout.partition("\n")
    assert float(found) == pytest.approx(total, rel=1e-3)
    regions = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", maps, flags=re.MULTILINE)
    (read,) = (sum(int(size) for size in re.findall(r"^Rss: +(\d+) kB", region, re.MULTILINE))
               for region in ["".join(one for one in regions if str(data) in one)])  # fmt: skip
    assert read * 1024 >= SIZE * SIZE * 4  # all of the form that is read, and no copy of it:
    anonymous = [region for region in regions if re.search(r" 00:00 0 *$", region.split("\n", 1)[0])]
    assert max(int(re.findall(r"^Rss: +(\d+) kB", one, re.MULTILINE)[0]) for one in anonymous) * 1024 < SIZE * SIZE * 4


@pytest.mark.parametrize("before", [1024, 1025, 1032])
def test_packed_weights_lie_where_kernels_read_them(
    before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime begins what is below a megabyte where the weight before it ends, and its kernels may crash there."""
    monkeypatch.setattr(backend, "SHARED_BYTES", 0)
    source, total = product(tmp_path / "source", size=256, before=before)
    graph = tmp_path / "engine" / "model.onnx"
    optimise(source, graph, "cpu", 1)
    packed = graph.with_name("model.onnx.data").stat().st_size >= 2 * 256 * 256 * 4
    assert packed == (before * 4 % 64 == 0)
    done = subprocess.run([sys.executable, "-c", READS, str(graph), "256"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.partition("\n")[0]) == pytest.approx(total, rel=1e-3)


def test_lists_stay_the_same(tiny: Tiny, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "SHARED_BYTES", 0)
    good("build-engine", bundle, "--overwrite", "--threads", 1)
    folder = bundle / "engines" / ENGINE
    assert (folder / "target/model.onnx.data").stat().st_size > (folder / "target/model.onnx").stat().st_size
    histories = [[str(i), str(i * 7 % 40)] for i in range(20)]
    before, after = (Recommender.open(one).recommend(histories, 10) for one in (tiny.bundle, bundle))
    for old, new in zip(before, after, strict=True):
        assert [item.item for item in new.items] == [item.item for item in old.items]
        assert [item.score for item in new.items] == pytest.approx([item.score for item in old.items], abs=1e-5)
