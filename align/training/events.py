"""TensorBoard events, where TensorBoard is installed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Events:
    """Writes scalars to a folder of events; without a folder, or without TensorBoard, does nothing."""

    def __init__(self, folder: Path | None, *, after: int = 0) -> None:
        """`after`: the step from which a run goes on; what an interrupted run wrote beyond it is hidden."""
        self._writer: Any = None
        if folder is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            self._writer = SummaryWriter(folder, purge_step=after + 1)

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of one step."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
