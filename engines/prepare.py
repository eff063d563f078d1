"""An exported graph in the form that a device runs best: its precision, its operators, its mask."""

from pathlib import Path

from ..catalog.errors import EngineError, SpecBeamError
from ..catalog.extras import install
from .bundle.facts import Precision


def prepare_graph(
    source: Path,
    destination: Path,
    *,
    exported: Precision,
    wanted: Precision,
    mask_slots: int | None = None,
    decomposed: bool = False,
) -> Path:
    """A graph like `source` in another form; `source` itself where nothing changes.

    exported, wanted: its precision, and that of the result (only fp32 is converted). mask_slots: who sees
    what is told by `visible_below` and `visible_slots` (so many a token), not by a mask. decomposed:
    without operators that not every importer has. Raises `EngineError` where onnx-ir is not installed.
    """
    if exported == wanted and mask_slots is None and not decomposed:
        return source
    try:
        from ..graphs.decompose import decompose
        from ..graphs.files import load_graph, save_graph
        from ..graphs.fold import fold_weights
        from ..graphs.index_mask import index_mask
        from ..graphs.lower import lower
    except ModuleNotFoundError as error:
        raise EngineError(
            f"Converting a graph needs {error.name}, which is not installed. Run: {install('quantize')}"
        ) from error
    try:
        model = load_graph(source)
        fold_weights(model)
        if decomposed:
            decompose(model)
        if mask_slots is not None:
            index_mask(model, mask_slots)
        if wanted != exported:
            lower(model, wanted)
    except (SpecBeamError, MemoryError):
        raise
    except Exception as error:  # what a graph that is none of the contract makes of transforms of such graphs
        raise EngineError(
            f"{source} cannot be converted: {type(error).__name__}: {error}. If it was changed since it was exported, "
            "export again."
        ) from error
    destination.parent.mkdir(parents=True, exist_ok=True)
    save_graph(model, destination)
    return destination
