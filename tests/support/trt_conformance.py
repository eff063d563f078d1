"""What our code and the stand-ins use of TensorRT's modules, read from their sources, and what a module really has."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import specbeam
from places import SUPPORT

PACKAGE = Path(specbeam.__file__).parent
OURS = [PACKAGE / "engines" / "tensorrt" / f"{name}.py" for name in ("load", "build", "library", "monitor", "engine")]
NAMES = {("__version__",), ("__name__",)}


def probe(folder: Path, *arguments: object) -> Any:
    """What trt_probe.py prints about the module in `folder`; warnings are errors there, too."""
    path = os.pathsep.join([str(folder), str(SUPPORT)])
    done = subprocess.run(
        [sys.executable, "-W", "error", SUPPORT / "trt_probe.py", *map(str, arguments)],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def chains(path: Path) -> set[tuple[str, ...]]:
    """Every `trt.A.B` in a source file, as ("A", "B")."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.insert(0, node.attr)
            node = node.value
        if names and isinstance(node, ast.Name) and node.id == "trt":
            found.add(tuple(names))
    return found


def uses() -> dict[str, set[str]]:
    """The public attributes of every class of fake_tensorrt.py, those set in methods included."""
    tree = ast.parse((SUPPORT / "fake_tensorrt.py").read_text())
    found = {}
    for kind in (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name != "Fault"):
        names = {node.name for node in ast.walk(kind) if isinstance(node, ast.FunctionDef)}
        for target in (node for node in ast.walk(kind) if isinstance(getattr(node, "ctx", None), ast.Store)):
            if isinstance(target, ast.Attribute):
                names.add(target.attr)
        for statement in kind.body:
            if isinstance(statement, ast.Assign):
                names |= {n.id for n in ast.walk(statement.targets[0]) if isinstance(n, ast.Name)}
        found[kind.name] = {name for name in names if not name.startswith("_")}
    return found
