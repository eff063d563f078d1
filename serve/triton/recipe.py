"""The recipe for a model's execution environment, so that a container's own packages do not matter."""

import re
from importlib.metadata import version

from ... import __version__
from ...catalog.extras import declared
from ...engines.bundle.items import Bundle
from ...engines.installed import PACKAGES, installed_package

REQUIREMENTS, SCRIPT = "requirements.txt", "make.sh"
MAKE = """\
#!/usr/bin/env bash
# Makes the environment that this model runs in, beside this file. Run it where the server runs (in its container), as
# an environment stays where it was made:
#
#   bash make.sh SPECBEAM-WHEEL
#
# PYTHON: an interpreter of the version that the server's Python backend was built for. NUMPY: another pin of NumPy;
# servers up to Triton 24.10 need one below 2, such as NUMPY=numpy==1.26.4.
set -euo pipefail
[[ $# == 1 && -e "$1" ]] || { echo "usage: bash make.sh SPECBEAM-WHEEL (a file; got: $*)" >&2; exit 2; }
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
[[ ! -e "$here/venv" ]] || { echo "$here/venv is there already. Remove it to make it anew." >&2; exit 1; }
trap 'status=$?; [[ $status == 0 ]] || rm -rf "$here/venv"' EXIT
unset PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK=1
"${PYTHON:-python3}" -m venv "$here/venv"
pip=("$here/venv/bin/python" -m pip install --quiet)
sed "s/^numpy==.*/${NUMPY:-&}/" "$here/requirements.txt" >"$here/venv/requirements.txt"
"${pip[@]}" --requirement "$here/venv/requirements.txt"
"${pip[@]}" --no-deps "$1"
"$here/venv/bin/python" -c 'import specbeam.serve.triton.model, sys
print("specbeam", specbeam.__version__, "for Python %d.%d:" % sys.version_info[:2], sys.prefix)'
"""


def requirements(bundle: Bundle, engine: str) -> str:
    """Exact versions of what serves an engine of a bundle, as pip reads them: those of this machine, and of the
    engine's own library those that built it."""
    own = [re.split(r"[^\w.-]", wanted)[0] for wanted in declared().get("", [])]
    lines = [f"# What {engine} is served with, beside specbeam {__version__} itself, which make.sh is given."]
    return "\n".join([*lines, *sorted([*map(_pinned, own), *_library(bundle, engine)])]) + "\n"


def _pinned(name: str) -> str:
    return f"{name}=={version(name)}"


def _library(bundle: Bundle, engine: str) -> list[str]:
    if engine.startswith("torch-"):
        return [_pinned("torch"), _pinned("transformers")]
    facts = bundle.engine_facts(engine)
    if facts.backend == "onnxruntime":
        cpu, gpu = PACKAGES["onnxruntime"]
        return [f"{gpu if facts.device == 'cuda' else cpu}=={facts.versions[facts.backend]}"]
    # Beside the library Polygraphy, whose wrapper of CUDA the engines use, and CUDA's runtime where no other package
    # brings it; that need not be here, where the engine was compiled.
    runtime = [wanted for wanted in declared().get(facts.backend, []) if wanted.startswith("nvidia-cuda-runtime")]
    library = f"{installed_package(facts.backend)[0]}=={facts.versions[facts.backend]}"
    return [library, _pinned("polygraphy"), *runtime]
