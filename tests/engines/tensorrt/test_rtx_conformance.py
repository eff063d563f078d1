"""What SpecBeam uses of TensorRT for RTX exists in the genuine module, as it does in fake_tensorrt_rtx.py."""

import ast
import inspect
from enum import EnumMeta

import pytest

import fake_tensorrt_rtx as fake
from places import SUPPORT
from trt_conformance import NAMES, OURS, PACKAGE, chains, probe, uses

pytestmark = pytest.mark.compiler
ALL = [*OURS, PACKAGE / "engines" / "tensorrt" / "just_in_time.py"]
NOT_ASKED = {"ITimingCache", "Fault"}  # of plans that are built where they run


def own_uses() -> dict[str, set[str]]:
    """The public methods of every class that fake_tensorrt_rtx.py adds or extends."""
    tree = ast.parse((SUPPORT / "fake_tensorrt_rtx.py").read_text())
    return {
        kind.name: {node.name for node in kind.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"}
        for kind in tree.body
        if isinstance(kind, ast.ClassDef)
    }


def test_everything_that_is_used_exists() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    api = probe(SUPPORT, "api", "tensorrt_rtx")
    for first, *rest in set.union(*map(chains, ALL)) - NAMES:
        assert first in api
        assert not rest or rest[0] in {*api[first]["attributes"], "__members__"}, (first, rest)
    for name, kind in vars(fake).items():
        if isinstance(kind, EnumMeta) and len(kind) and name in api:
            assert {member.name for member in kind} <= set(api[name]["members"]), name
    for name, attributes in [*uses().items(), *own_uses().items()]:
        if name not in NOT_ASKED:
            assert attributes <= api[name]["attributes"].keys(), name
    for name, attributes in own_uses().items():
        for attribute in attributes:
            function = vars(getattr(fake, name)).get(attribute)
            if inspect.isfunction(function):
                arguments = list(inspect.signature(function).parameters)[1:]
                overloads = api[name]["attributes"][attribute]
                assert any(arguments == genuine[: len(arguments)] for genuine in overloads), (name, attribute)
    assert {"ComputeCapability", "EngineInvalidityDiagnostics", "EngineValidity"} <= api.keys()


def test_diagnostics_are_those_of_the_module() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    from specbeam.engines.tensorrt.just_in_time import DIAGNOSTICS

    genuine = {name: int(value) for name, value in trt.EngineInvalidityDiagnostics.__members__.items()}
    assert genuine == {member.name: int(member) for member in fake.EngineInvalidityDiagnostics}
    assert genuine.keys() == DIAGNOSTICS.keys()
