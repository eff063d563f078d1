"""The files that an evaluation writes, each whole or absent."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..catalog.errors import OptionError
from ..catalog.files import whole_file
from ..engines.bundle.sealed import to_json
from ..runtime.runs.inference import check_outputs
from .run import Evaluation, UserLine


@dataclass(frozen=True)
class Outputs:
    """Where everything goes; None: it is not wanted."""

    figures: Path | None = None  # JSON
    per_user: Path | None = None  # JSON lines
    plots: tuple[Path, ...] = ()
    overwrite: bool = False

    @property
    def paths(self) -> list[Path]:
        return [*filter(None, (self.figures, self.per_user)), *self.plots]

    def check(self) -> None:
        """Raise `SpecBeamError`, before any work, for what could not be written."""
        check_files(self.paths, self.plots, overwrite=self.overwrite)

    @contextmanager
    def lines(self) -> Iterator[Callable[[UserLine], object]]:
        """Takes every request's result as it comes."""
        if self.per_user is None:
            yield lambda line: None
            return
        encoder = msgspec.json.Encoder()
        with whole_file(self.per_user, replace=self.overwrite) as file:
            yield lambda line: file.write(encoder.encode(line) + b"\n")

    def write(self, evaluation: Evaluation) -> None:
        """Write the figures and the pictures."""
        if self.figures is not None:
            with whole_file(self.figures, replace=self.overwrite) as file:
                file.write(to_json(evaluation))
        if self.plots:
            from .picture import chart
            from .tree_picture import save

            picture = chart(evaluation)
            for plot in self.plots:
                save(picture, plot, overwrite=self.overwrite)


def check_files(paths: Sequence[Path], plots: Sequence[Path], *, overwrite: bool) -> None:
    """Raise `SpecBeamError` for outputs that could not be written; plots: those of them that are pictures."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise OptionError(f"got {', '.join(map(str, paths))}; expected another name for every output.")
    if plots:
        from .tree_picture import check_kind

        for plot in plots:
            check_kind(plot)
    for path in paths:
        check_outputs(path, None, [], overwrite)
