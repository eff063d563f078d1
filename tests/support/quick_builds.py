"""Exports and builds without what takes most of their time, for tests of what comes after them."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


@contextmanager
def few_timings() -> Iterator[None]:
    """Builds time short calls of one request only; nobody looks at the rest of the grid."""
    from specbeam.engines import latency

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "BATCHES", (1,))
        patch.setattr(latency, "NEW_TOKENS", (1, 20))
        yield


@contextmanager
def traced_once(folder: Path) -> Iterator[None]:
    """A model that was exported before gets the graph of then, kept in `folder`: the same weights and columns give it.

    Everything else of an export is done every time, the comparison of the graph with the model included.
    """
    from specbeam.export import model as exporting

    def remembering(trace: Any) -> Any:
        def export(model: Any, columns: Any, path: Path, *, progress: Any, **settings: Any) -> None:
            kept = folder / _fingerprint(model, columns, settings)
            if not kept.exists():
                trace(model, columns, path, progress=progress, **settings)
                kept.mkdir(parents=True)
                for file in path.parent.glob("*.onnx*"):
                    shutil.copy(file, kept)
                return
            for file in kept.iterdir():
                shutil.copy(file, path.parent)

        return export

    with pytest.MonkeyPatch.context() as patch:
        for name in ("export_graph", "export_graphs"):  # of decoders, of encoder-decoders
            patch.setattr(exporting, name, remembering(getattr(exporting, name)))
        yield


def _fingerprint(model: Any, columns: Any, settings: dict[str, Any]) -> str:
    """Of all that a graph is made of: architecture, settings, weights, and the columns of its log-probabilities."""
    config = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}
    found = hashlib.sha256(repr((type(model), sorted(config.items(), key=str), sorted(settings.items()))).encode())
    found.update(np.asarray(columns, np.int64).tobytes())
    for name, weight in sorted(model.state_dict().items()):
        found.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        found.update(weight.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
