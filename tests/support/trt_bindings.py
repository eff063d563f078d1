"""TensorRT's genuine Python modules, importable without its libraries and without a GPU.

The wheels with the bindings hold one extension module, which leaves a few C functions unresolved. Libraries
of our own that define them, returning nothing, make the import work: every class, enum and signature is there.
"""

import shutil
import subprocess
import sys
import zipfile
from os import environ
from pathlib import Path

import pytest

LIBRARIES = {"tensorrt": ("nvinfer", "nvinfer_plugin", "nvonnxparser"), "tensorrt_lean": ("nvinfer_lean",)}
SOURCE = """
void *createInferBuilder_INTERNAL(void *l, int v) { return 0; }
void *createInferRefitter_INTERNAL(void *e, void *l, int v) { return 0; }
void *createInferRuntime_INTERNAL(void *l, int v) { return 0; }
void *createNvOnnxParserRefitter_INTERNAL(void *r, void *l, int v) { return 0; }
void *createNvOnnxParser_INTERNAL(void *n, void *l, int v) { return 0; }
void *getBuilderPluginRegistry(int c) { return 0; }
int getNvOnnxParserVersion(void) { return 0; }
void *getPluginRegistry(void) { return 0; }
_Bool initLibNvInferPlugins(void *l, const char *n) { return 0; }
"""


def wheel(folder: Path, distribution: str, version: str) -> Path:
    """A wheel from the folder that SPECBEAM_TENSORRT_WHEELS names, or else from pip; skips where neither has it."""
    given = environ.get("SPECBEAM_TENSORRT_WHEELS")
    pattern = f"{distribution.replace('-', '_')}-{version}-*.whl"
    if given:
        found = sorted(Path(given).glob(pattern))
        if not found:
            pytest.skip(f"SPECBEAM_TENSORRT_WHEELS={given} has no {pattern}")
        return found[-1]
    quick = ["--quiet", "--no-deps", "--retries", "0", "--timeout", "15", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *quick, "--dest", str(folder), f"{distribution}=={version}"]
    try:
        reason = subprocess.run(command, capture_output=True, text=True, timeout=120).stderr
    except subprocess.TimeoutExpired as error:
        reason = str(error)
    found = sorted(folder.glob(pattern))
    if not found:
        last = (reason.strip().splitlines() or ["it gave no reason"])[-1]
        pytest.skip(f"pip cannot download {distribution}=={version}; set SPECBEAM_TENSORRT_WHEELS to a folder: {last}")
    return found[-1]


def bindings(folder: Path, module: str, version: str) -> Path:
    """A folder to put on sys.path, from which `import <module>` gives TensorRT's own classes."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for what the bindings link to")
    with zipfile.ZipFile(wheel(folder, f"{module.replace('_', '-')}-cu13-bindings", version)) as archive:
        archive.extractall(folder)
    package, major = folder / f"{module}_bindings", version.partition(".")[0]
    (folder / "null.c").write_text(SOURCE)
    for library in LIBRARIES[module]:
        name = f"lib{library}.so.{major}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", package / name, folder / "null.c"]
        subprocess.run(command, check=True)
    (folder / f"{module}.py").write_text(f"import sys, {package.name}\nsys.modules[__name__] = {package.name}\n")
    return folder
