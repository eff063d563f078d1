"""What an import loads."""

import sys
from subprocess import run

HEAVY = {"torch", "transformers", "tensorrt", "peft", "onnx", "onnxscript", "tokenizers", "accelerate", "pyarrow"}
HEAVY |= {"huggingface_hub"}
HEAVY |= {"altair", "vl_convert", "onnx_ir", "polygraphy", "tensorrt_lean", "sklearn", "scipy"}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())
