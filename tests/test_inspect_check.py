"""inspect --check tensorrt on a bundle: every graph that build-engine could make, told and counted."""

import json
import shutil
from pathlib import Path

import pytest

from commands import bad, good, run
from specbeam.graphs import tensorrt_ops
from tiny_bundle import Tiny, edit_manifest

GRAPHS = [f"{role}, {precision}" for role in ("target", "draft") for precision in ("fp16", "bf16", "int8")]


def test_every_graph_is_importable_by_every_version(tiny: Tiny) -> None:
    told = good("inspect", tiny.bundle, "--check", "tensorrt").output
    for graph in GRAPHS:
        assert f"{graph}: " in told
    assert told.count("importable\n") == len(GRAPHS) * len(tensorrt_ops.VERSIONS)
    assert "Known from the parser's published table of TensorRT 10.15" in told


def test_as_json(tiny: Tiny) -> None:
    checks = json.loads(good("inspect", tiny.bundle, "--check", "tensorrt", "--json").output)
    assert [check["graph"] for check in checks] == GRAPHS
    assert all(version["importable"] for check in checks for version in check["versions"])


def test_what_is_refused_is_said_and_is_the_exit_status(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(tensorrt_ops.OPERATORS, "LogSoftmax")
    result = run("inspect", tiny.bundle, "--check", "tensorrt")
    assert result.exit_code == 1
    assert "not importable: 1 finding on LogSoftmax" in result.output


def test_a_bundle_without_a_draft_and_a_damaged_one(bundle: Path) -> None:
    shutil.rmtree(bundle / "draft")
    edit_manifest(bundle, draft=None)
    told = good("inspect", bundle, "--check", "tensorrt").output
    assert "draft" not in told
    (bundle / "target/model.onnx").write_bytes(b"no graph")
    assert "target/model.onnx has 8 bytes, expected" in bad("inspect", bundle, "--check", "tensorrt")
