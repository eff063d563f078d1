"""The libraries behind the backends: which packages bring them, and which version is here."""

from importlib.metadata import PackageNotFoundError, version

from ..catalog.errors import EngineError
from ..catalog.extras import install_module

TENSORRT = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-lean", "tensorrt-lean-cu13", "tensorrt-lean-cu12")
RTX = ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12")
PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "torch": ("torch",), "tensorrt": TENSORRT, "tensorrt-rtx": RTX,
}  # fmt: skip


def backend_version(backend: str) -> str:
    """Version of the installed library behind a backend; raises `EngineError` where it is unknown or not installed."""
    return installed_package(backend)[1]


def installed_package(backend: str) -> tuple[str, str]:
    """The installed package that brings a backend's library, and its version; see `backend_version`."""
    if backend not in PACKAGES:
        raise EngineError(f"There is no backend {backend!r}; expected one of: {', '.join(PACKAGES)}.")
    for package in PACKAGES[backend]:
        try:
            return package, version(package) or "of an unknown version"  # none: its metadata is damaged
        except PackageNotFoundError:
            continue
    raise EngineError(f"The {backend} backend is not installed. Run: {install_module(backend.replace('-', '_'))}")
