"""A long run's results as they come, so that an interrupted run goes on where it stopped."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from ..catalog.disk import told_if_full
from ..catalog.errors import SpecBeamError
from ..catalog.files import Frozen, sha256, whole_file
from ..engines.text_bundle import TextBundle
from ..pools.files import POOL_FILE
from .files import TextLine


class RunFacts(Frozen, frozen=True):
    """What a run's texts depend on: an interrupted run is gone on with by one that has the same."""

    bundle: str  # the manifest's checksum
    engine: str
    prompts: str | None  # SHA-256 of the file; None: they come from no file, and cannot be told to be the same
    pool: str | None
    options: dict[str, Any]

    @classmethod
    def of(
        cls, bundle: TextBundle, engine: str, prompts: Path, pool: Path | None, options: dict[str, Any]
    ) -> "RunFacts":
        """Of a run that is about to begin."""
        return cls(
            bundle=bundle.manifest.checksum, engine=engine, options=options,
            prompts=sha256(prompts) if prompts.is_file() else None,
            pool=None if pool is None else sha256(pool / POOL_FILE),
        )  # fmt: skip


class Journal:
    """OUTPUT.partial, which holds the texts in the order they were finished, and OUTPUT.partial.json, the run's facts.

    When all are there, those that were asked for are written to OUTPUT in the order of their prompts, and both are
    removed.
    """

    def __init__(self, output: Path, file: IO[bytes], *, overwrite: bool) -> None:
        self._output, self._file, self._overwrite = output, file, overwrite
        self.done: dict[int, tuple[int, int]] = {}  # line of the prompt to where its text is: beginning, bytes
        self._asked: set[int] = set()  # lines that this run was asked for

    @classmethod
    @contextmanager
    def open(cls, output: Path, facts: RunFacts, *, overwrite: bool) -> Iterator["Journal"]:
        """Begin, or go on. Raises `SpecBeamError` where another run is at it, or was interrupted with other facts."""
        partial, told = journal_files(output)
        output.parent.mkdir(parents=True, exist_ok=True)
        with told_if_full(output), partial.open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise SpecBeamError(
                    f"{partial} is being written by another run. Wait for it, or choose another output."
                ) from None
            journal = cls(output, file, overwrite=overwrite)
            if os.fstat(file.fileno()).st_size and not overwrite:
                _check(told, facts, partial)
                journal._read()
            else:
                file.truncate(0)
                with whole_file(told, replace=True) as settings:
                    settings.write(msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n")
            yield journal

    def texts(self) -> Iterator[TextLine]:
        """The texts of earlier runs, in the order they were finished."""
        for start, size in sorted(self.done.values()):
            self._file.seek(start)
            yield msgspec.json.decode(self._file.read(size), type=TextLine)

    def has(self, line: int) -> bool:
        """Whether the text of a prompt, which is asked for, is there already."""
        self._asked.add(line)
        return line in self.done

    def add(self, line: TextLine) -> None:
        """Keep one text; it survives whatever happens to the process afterwards."""
        data = msgspec.json.encode(line) + b"\n"
        start = self._file.seek(0, os.SEEK_END)
        self._file.write(data)
        self._file.flush()
        self.done[line.line] = start, len(data)
        self._asked.add(line.line)

    def finish(self) -> None:
        """Write the output, whole, in the order of the prompts; none where no prompt could be used."""
        lines = sorted(self._asked & self.done.keys())
        if lines:
            with whole_file(self._output, replace=self._overwrite) as output:
                for line in lines:
                    start, size = self.done[line]
                    self._file.seek(start)
                    output.write(self._file.read(size))
        for path in journal_files(self._output):
            path.unlink(missing_ok=True)

    def _read(self) -> None:
        """What is there; a last line that was cut off is removed."""
        self._file.seek(0)
        end = 0
        for data in self._file:
            try:
                line = msgspec.json.decode(data, type=TextLine)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                break
            if not data.endswith(b"\n"):
                break
            self.done[line.line] = end, len(data)
            end += len(data)
        self._file.truncate(end)


def journal_files(output: Path) -> tuple[Path, Path]:
    """Where a run's results are kept until it is complete, and what it was asked."""
    return output.with_name(f"{output.name}.partial"), output.with_name(f"{output.name}.partial.json")


def _check(told: Path, facts: RunFacts, partial: Path) -> None:
    """Raise `SpecBeamError` unless the interrupted run was asked the same."""
    try:
        before = msgspec.json.decode(told.read_bytes(), type=RunFacts)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SpecBeamError(
            f"{partial} is of an interrupted run, but {told.name} does not say which ({error}). Pass --overwrite to "
            "begin anew, or choose another output."
        ) from None
    if before == facts and facts.prompts is not None:
        return
    if facts.prompts is None:
        raise SpecBeamError(
            f"{partial} is of an interrupted run, and prompts that come from no file cannot be told to be its own. "
            "Pass --overwrite to begin anew, or choose another output."
        )
    other = [name for name in ("bundle", "engine", "prompts", "pool") if getattr(before, name) != getattr(facts, name)]
    keys = sorted(before.options.keys() | facts.options.keys())
    other += [
        f"{key} ({before.options.get(key)}, now {facts.options.get(key)})"
        for key in keys
        if before.options.get(key) != facts.options.get(key)
    ]
    raise SpecBeamError(
        f"{partial} is of an interrupted run that differs in: {', '.join(other)}. Run it again as it was to go on with "
        "it, pass --overwrite to begin anew, or choose another output."
    )
