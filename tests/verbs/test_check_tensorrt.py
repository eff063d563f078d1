"""inspect --check tensorrt: whether TensorRT imports a bundle's graphs, by the table and by its own parser."""

import json
import shutil
from pathlib import Path

import pytest

from commands import bad, good, run
from fake_cuda import FakeCuda
from specbeam.engines.bundle.facts import EnginePrecision
from specbeam.engines.tensorrt.flavour import TENSORRT
from specbeam.engines.tensorrt.parser import OwnParser, own_parsers
from specbeam.graphs import tensorrt_ops
from specbeam.graphs.tensorrt import Finding, ParserCheck
from tiny_bundle import Tiny, edit_manifest

PRECISIONS: tuple[EnginePrecision, ...] = ("fp32", "fp16", "bf16", "int8")
FORMS = (*PRECISIONS, "int8-weights by weight8", "int8-weights by weight4")
GRAPHS = [f"{role}, {form}" for role in ("target", "draft") for form in FORMS]
REFUSAL = Finding(severity="refused", node="node_linear", operator="MatMul", message="is not for today")


class Parser:
    """A parser that refuses one graph."""

    name, precisions = "TensorRT 99.1", PRECISIONS

    def __init__(self, refused: str) -> None:
        self._refused = refused

    def check(self, graph: Path) -> ParserCheck:
        refused = graph.parent.name == self._refused
        return ParserCheck(parser=self.name, importable=not refused, findings=(REFUSAL,) * refused)


def ask(patch: pytest.MonkeyPatch, *parsers: Parser) -> None:
    """Let these be the parsers that are installed."""
    reasons = [] if parsers else ["TensorRT is not usable here (No module named 'tensorrt')"]
    patch.setattr("specbeam.calib.tensorrt.own_parsers", lambda: (list(parsers), reasons))


@pytest.fixture
def table_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ask(monkeypatch)


@pytest.mark.usefixtures("table_alone")
def test_every_graph_is_importable_by_every_version(tiny: Tiny) -> None:
    told = good("inspect", tiny.bundle, "--check", "tensorrt").output
    for graph in GRAPHS:
        assert f"{graph}: " in told
    assert told.count("importable\n") == len(GRAPHS) * len(tensorrt_ops.VERSIONS)
    assert "known from the parser's published table of TensorRT 10.15" in told
    assert "No parser of TensorRT's own was asked" in told
    assert "Not asked: TensorRT is not usable here (No module named 'tensorrt')" in told


@pytest.mark.usefixtures("table_alone")
def test_as_json(tiny: Tiny) -> None:
    checks = json.loads(good("inspect", tiny.bundle, "--check", "tensorrt", "--json").output)
    assert [check["graph"] for check in checks] == GRAPHS
    assert all(version["importable"] for check in checks for version in check["versions"])
    assert [check["parsers"] for check in checks] == [[]] * len(GRAPHS)


@pytest.mark.usefixtures("table_alone")
def test_what_is_refused_is_said_and_is_the_exit_status(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(tensorrt_ops.OPERATORS, "LogSoftmax")
    result = run("inspect", tiny.bundle, "--check", "tensorrt")
    assert result.exit_code == 1
    assert "not importable: 1 finding on LogSoftmax" in result.output


@pytest.mark.usefixtures("table_alone")
def test_a_bundle_without_a_draft_and_a_damaged_one(bundle: Path) -> None:
    shutil.rmtree(bundle / "draft")
    edit_manifest(bundle, draft=None)
    told = good("inspect", bundle, "--check", "tensorrt").output
    assert "draft" not in told
    (bundle / "target/model.onnx").write_bytes(b"no graph")
    assert "target/model.onnx has 8 bytes, expected" in bad("inspect", bundle, "--check", "tensorrt")


def test_the_own_parser_is_asked_of_what_it_would_build(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Parser(""), Parser("")
    other.name, other.precisions = "TensorRT for RTX 98", ("fp16",)
    ask(monkeypatch, one, other)
    told = good("inspect", tiny.bundle, "--check", "tensorrt").output
    assert told.count("  parsed by TensorRT 99.1's own parser: importable\n") == 2 * len(PRECISIONS)
    assert told.count("  parsed by TensorRT for RTX 98's own parser: importable\n") == 2
    assert "Parsed here by: TensorRT 99.1, TensorRT for RTX 98." in told
    assert "No parser" not in told


def test_what_the_own_parser_refuses_is_the_exit_status_whatever_the_table_says(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(monkeypatch, Parser("draft-bf16"))
    result = run("inspect", tiny.bundle, "--check", "tensorrt")
    assert result.exit_code == 1
    assert "  parsed by TensorRT 99.1's own parser: not importable: 1 finding on MatMul\n" in result.output
    assert "1 x MatMul is not for today\n" in result.output
    result = run("inspect", tiny.bundle, "--check", "tensorrt", "--json")
    assert result.exit_code == 1
    checks = [check for check in json.loads(result.output) if check["parsers"]]
    refused = [check for check in checks if not check["parsers"][0]["importable"]]
    assert [check["graph"] for check in refused] == ["draft, bf16"]
    assert refused[0]["parsers"][0]["findings"][0]["node"] == "node_linear"
    assert all(version["importable"] for version in refused[0]["versions"])


def test_other_options_tell_of_something_else(tiny: Tiny) -> None:
    message = bad("inspect", tiny.bundle, "--checksums", "--check", "tensorrt")
    assert "got --check and --checksums; expected one of them" in message


def test_a_parser_on_the_stand_in(tiny: Tiny, gpu: FakeCuda) -> None:
    import fake_tensorrt

    graph = tiny.bundle / "target/model.onnx"
    parser = OwnParser(TENSORRT)
    assert (parser.name, parser.precisions) == ("TensorRT 10.16.1.11", PRECISIONS)
    assert parser.check(graph) == ParserCheck(parser=parser.name, importable=True, findings=())
    fake_tensorrt.Fault.parser = (("Unique", "node_7", "is\n  not  imported"), ("", "", "is no graph"))
    refused = parser.check(graph)
    assert not refused.importable
    assert [(one.operator, one.node, one.message) for one in refused.findings] == [
        ("Unique", "node_7", "is not imported"), ("graph", "a node without a name", "is no graph"),
    ]  # fmt: skip
    fake_tensorrt.Fault.builder = "no CUDA driver"
    parsers, reasons = own_parsers()
    assert all("RTX" in parser.name for parser in parsers)
    assert any("cannot start its builder here: no CUDA driver" in reason for reason in reasons)


@pytest.mark.compiler
def test_the_parser_of_tensorrt_for_rtx(tiny: Tiny) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT for RTX", exc_type=ImportError)
    checks = json.loads(good("inspect", tiny.bundle, "--check", "tensorrt", "--json").output)
    asked = {check["graph"]: [one["parser"][:18] for one in check["parsers"]] for check in checks}
    for graph in GRAPHS:
        assert ("TensorRT for RTX 1" in asked[graph]) == (not graph.endswith("int8"))
    assert all(one["importable"] for check in checks for one in check["parsers"])
