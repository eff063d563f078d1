"""From Hugging Face checkpoints to a bundle of ONNX graphs, proven equal to the models."""

from .bundle import export_bundle
from .parity import ParityReport, check_parity

__all__ = ["ParityReport", "check_parity", "export_bundle"]
