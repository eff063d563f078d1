"""What SpecBeam and Polygraphy use of TensorRT exists in the genuine modules of both major versions.

The other tests run the real code on fake_tensorrt.py, which has nothing but what that code uses; here
everything in it is held against the genuine module's classes and signatures.
"""

import inspect
import os
import subprocess
import sys
import zipfile
from enum import EnumMeta
from pathlib import Path

import pytest

from trt_bindings import bindings, wheel
from trt_conformance import NAMES, OURS, PACKAGE, chains, probe, uses

pytest.importorskip("polygraphy")
VERSIONS = ("11.4.0.106", "10.16.1.11", "10.14.1.48.post1")
RTX_ALONE = {("ComputeCapability",)}  # what is asked of TensorRT for RTX alone
MADE_BY_US = {"Builder", "OnnxParser", "Runtime"}  # the rest comes from TensorRT


@pytest.fixture(scope="module", params=VERSIONS)
def genuine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bindings(tmp_path_factory.mktemp("bindings"), "tensorrt", request.param)


def test_the_lists_that_are_compared_are_not_empty() -> None:
    found = set.union(*map(chains, OURS))
    assert {("ILogger",), ("MemoryPoolType", "WORKSPACE"), ("TensorIOMode", "INPUT"), ("OnnxParser",)} <= found
    assert {"set_input_shape", "set_tensor_address", "execute_async_v3"} <= uses()["IExecutionContext"]
    assert {"num_inputs", "get_input", "get_flag"} <= uses()["INetworkDefinition"]
    assert {"DLA_core", "progress_monitor", "set_timing_cache"} <= uses()["IBuilderConfig"]


def test_everything_that_is_used_exists(genuine: Path) -> None:
    import fake_tensorrt

    api = probe(genuine, "api", "tensorrt")
    for first, *rest in set.union(*map(chains, OURS)) - NAMES - RTX_ALONE:
        assert first in api
        assert not rest or rest[0] in api[first]["attributes"], (first, rest)
    for name, kind in vars(fake_tensorrt).items():
        if isinstance(kind, EnumMeta) and len(kind):
            assert {member.name for member in kind} <= set(api[name]["members"]), name
    for name, attributes in uses().items():
        assert attributes <= api[name]["attributes"].keys(), name
        kind = getattr(fake_tensorrt, name)
        for attribute in attributes | ({"__init__"} if name in MADE_BY_US else set()):
            function = vars(kind).get(attribute)
            if inspect.isfunction(function):
                arguments = list(inspect.signature(function).parameters)[1:]
                overloads = api[name]["attributes"][attribute]
                assert any(arguments == genuine[: len(arguments)] for genuine in overloads), (
                    name,
                    attribute,
                    overloads,
                )
    assert api["init_libnvinfer_plugins"]["attributes"]["__call__"] == [["logger", "namespace"]]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_lean_runtime_has_what_running_a_plan_uses(version: str, tmp_path: Path) -> None:
    api = probe(bindings(tmp_path, "tensorrt_lean", version), "api", "tensorrt_lean")
    assert "Builder" not in api
    for first, *rest in chains(OURS[0]) | {("ILogger", "ERROR"), ("ILogger", "INTERNAL_ERROR")}:
        assert first == "__version__" or first in api
        assert not rest or rest[0] in api[first]["attributes"], (first, rest)
    for name in ("ILogger", "Runtime", "ICudaEngine", "IExecutionContext"):
        assert uses()[name] <= api[name]["attributes"].keys(), name


def test_the_build_runs_on_the_genuine_enums_and_base_classes(genuine: Path, graph: Path, tmp_path: Path) -> None:
    done = probe(genuine, "build", graph, tmp_path)
    assert done["version"] in VERSIONS
    assert done["errors"] == "ERROR"  # the last severity that is kept
    assert done["progress"] == 2 * 5
    plain, compatible = done["plans"]
    assert (plain["flags"], plain["pools"], plain["hardware"]) == ([], {}, "NONE")
    assert compatible["flags"] == ["VERSION_COMPATIBLE"]
    assert (compatible["pools"], compatible["hardware"]) == ({"WORKSPACE": 1 << 20}, "AMPERE_PLUS")
    assert (tmp_path / "timing").read_bytes() == b"timed;"


def test_libraries_that_do_nothing_are_named(genuine: Path, graph: Path, tmp_path: Path) -> None:
    (tmp_path / "plan").write_bytes(b"")
    builder, runtime = probe(genuine, "load", graph, tmp_path / "plan")
    for said, kind in ((builder, "builder"), (runtime, "runtime")):
        assert f"cannot start its {kind} here" in said
        assert "pip install 'tensorrt>=" in said


def test_types_by_the_published_stubs(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    with zipfile.ZipFile(wheel(tmp_path, "tensorrt-stubs", "10.13.0.35.1")) as archive:
        archive.extractall(tmp_path)
    stub = tmp_path / "tensorrt_bindings" / "tensorrt.pyi"  # as published it is no Python, in functions we do not use
    stub.write_text(
        stub.read_text().replace(" in: ", " in_: ").replace("channel_axis: int)", "channel_axis: int = ...)")
    )
    (tmp_path / "specbeam").symlink_to(PACKAGE)
    modules = [argument for path in OURS for argument in ("-m", f"specbeam.engines.tensorrt.{path.stem}")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", tmp_path, *modules],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"MYPYPATH": str(tmp_path)},
    )  # fmt: skip
    ours = [line for line in done.stdout.splitlines() if line.startswith("specbeam/engines/tensorrt")]
    assert "Found" in done.stdout
    assert "prevented" not in done.stdout, done.stdout
    assert not ours


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from trt_cases import export_graphs

    return export_graphs(tmp_path_factory).fp32
