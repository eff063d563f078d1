"""The files that a race writes, each whole or absent."""

from dataclasses import dataclass
from pathlib import Path

from ...catalog.files import whole_file
from ...engines.bundle.sealed import to_json
from ..outputs import check_files
from .figures import Race


@dataclass(frozen=True)
class RaceOutputs:
    """Where everything goes; None: it is not wanted."""

    figures: Path | None = None  # JSON
    plots: tuple[Path, ...] = ()
    overwrite: bool = False

    @property
    def paths(self) -> list[Path]:
        return [*filter(None, (self.figures,)), *self.plots]

    def check(self) -> None:
        """Raise `SpecBeamError`, before any work, for what could not be written."""
        check_files(self.paths, self.plots, overwrite=self.overwrite)

    def write(self, race: Race) -> None:
        """Write the figures and the pictures."""
        if self.figures is not None:
            with whole_file(self.figures, replace=self.overwrite) as file:
                file.write(to_json(race))
        if self.plots:
            from ..tree_picture import save
            from .picture import chart

            picture = chart(race)
            for plot in self.plots:
                save(picture, plot, overwrite=self.overwrite)
