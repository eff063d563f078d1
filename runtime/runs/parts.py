"""A run whose output is a folder: partitions of the input in files of their own, and a manifest of them.

Until all are there they lie in OUTPUT.partial; OUTPUT.partial.log says what run it is, and which of them are complete.
A run that was interrupted goes on with those that lack.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, TypeVar, final

import msgspec

from ... import __version__
from ...catalog.bounds import DAMAGED, Size
from ...catalog.claims import claim
from ...catalog.disk import told_if_full
from ...catalog.errors import SpecBeamError
from ...catalog.files import Frozen, check_replaceable, place_directory, sha256, whole_file
from .log import (
    ANEW,
    JournalFiles,
    Part,
    RunFacts,
    check_same,
    counted,
    facts_left,
    records,
    sealed_record,
)
from .partition import Done, Key
from .windows import Outcomes

MANIFEST = "parts.json"
PARTS_SCHEMA = 1
Counts = TypeVar("Counts", bound=Outcomes)


class PartFile(Frozen, frozen=True):
    """A file of the folder."""

    file: str
    bytes: Size
    sha256: str


class PartEntry(Frozen, frozen=True):
    """A partition; without a file where it has no such lines."""

    inputs: list[str]  # the files that it is of, by their names
    number: Size  # in them
    results: PartFile | None
    rejects: PartFile | None
    counts: dict[str, Any]


class Manifest(Frozen, frozen=True):
    """What a run wrote, in the order of its input."""

    schema_version: int
    versions: dict[str, str]  # of this package, and of what it ran on
    run: RunFacts
    partition: Size  # lines of the input in each, but for the last of its files
    parts: list[PartEntry]
    counts: dict[str, Any]


LIBRARIES = ("numpy", "onnxruntime", "onnxruntime-gpu", "pyarrow", "ray", "tensorrt", "tensorrt-rtx", "torch")


def _versions() -> dict[str, str]:
    found = {"specbeam": __version__}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


OURS = re.compile(r"\.?(part|rejects)-\d{6}-\d{8}\.jsonl")  # and what lies beside them meanwhile


def part_name(kind: str, key: Key) -> str:
    """The name of a partition's file; by name they are in the input's order."""
    return f"{kind}-{key.stream:06}-{key.number:08}.jsonl"


@final
class PartFolder(Generic[Counts]):
    """Partitions as they come; see the module's text."""

    def __init__(self, output: Path, facts: RunFacts, counts: Counts) -> None:
        self.counts, self.complete = counts, False
        self.done: dict[Key, Part] = {}
        self._output, self._facts, self._paths = output, facts, JournalFiles.of(output)

    @property
    def kept(self) -> Path:
        """The folder in which they are until all are there."""
        return self._paths.results

    @classmethod
    @contextmanager
    def open(
        cls, output: Path, facts: RunFacts, counts: Counts, *, overwrite: bool,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> "Iterator[PartFolder[Counts]]":  # fmt: skip
        """Begin, or (without `overwrite`) go on with what an interrupted run left: `done` says with which.

        counts: of nothing yet. `progress` is told how many bytes of an interrupted run have been looked at. Raises
        `SpecBeamError` where another run is at it, was interrupted with other facts, or left files that were edited.
        """
        paths = JournalFiles.of(output)
        output.parent.mkdir(parents=True, exist_ok=True)
        with claim(output), told_if_full(output):
            left = facts_left(paths)
            if left is not None and not overwrite:
                check_same(left, facts, paths.results)
                folder = cls(output, msgspec.structs.replace(facts, overwrite=left.overwrite), counts)
                folder._recover(progress)
                if not folder.complete:
                    check_replaceable(output, kind=MANIFEST, replace=left.overwrite)
            else:
                check_replaceable(output, kind=MANIFEST, replace=overwrite)
                folder = cls(output, msgspec.structs.replace(facts, overwrite=overwrite), counts)
                folder._begin()
            try:
                yield folder
            finally:
                if not folder.done:  # files in which nothing was kept are of no use
                    folder._clear()

    def add(self, done: Done[Any]) -> None:
        """A partition that is complete; one that is there already stays."""
        if done.key in self.done:
            return
        for kind, data in (("part", done.results), ("rejects", done.rejects)):
            if data:
                with whole_file(self._paths.results / part_name(kind, done.key), replace=True) as file:
                    file.write(data)
        digests = hashlib.sha256(done.results).hexdigest(), hashlib.sha256(done.rejects).hexdigest()
        part = Part(
            stream=done.key.stream, number=done.key.number, results=len(done.results), rejects=len(done.rejects),
            digests=digests, counts=msgspec.to_builtins(done.counts),
        )  # fmt: skip
        self._log(sealed_record(part))
        self._take(part)

    def finish(self, inputs: list[list[str]], partition: int) -> None:
        """Write the manifest, and give the folder its name. inputs: the files of each stream; partition: lines.

        A run of nothing leaves none. Raises `OutputTakenError` where the name was taken meanwhile; the folder is kept
        beside it.
        """
        if not (self.counts.tried or self.counts.rejected):
            with suppress(OSError):  # where somebody put something into it
                self._paths.results.rmdir()
            self._paths.log.unlink()
            return
        parts = [self._entry(part, inputs) for _, part in sorted(self.done.items())]
        manifest = Manifest(
            schema_version=PARTS_SCHEMA, versions=_versions(), run=self._facts, partition=partition, parts=parts,
            counts=msgspec.to_builtins(self.counts),
        )  # fmt: skip
        named = {MANIFEST} | {each.file for part in parts for each in (part.results, part.rejects) if each}
        with whole_file(self._paths.results / MANIFEST, replace=True) as file:
            file.write(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
        for path in self._paths.results.iterdir():
            if path.name not in named and OURS.match(path.name):  # of a partition that was not complete
                path.unlink()
        place_directory(self._paths.results, self._output, kind=MANIFEST, replace=self._facts.overwrite)
        self._paths.log.unlink()

    def _entry(self, part: Part, inputs: list[list[str]]) -> PartEntry:
        key = Key(part.stream, part.number)
        files = [
            PartFile(file=part_name(kind, key), bytes=size, sha256=digest) if size else None
            for kind, size, digest in zip(("part", "rejects"), (part.results, part.rejects), part.digests, strict=True)
        ]
        return PartEntry(
            inputs=inputs[part.stream], number=part.number, results=files[0], rejects=files[1], counts=part.counts
        )

    def _take(self, part: Part) -> None:
        self.done[Key(part.stream, part.number)] = part
        self.counts.add(counted(part, type(self.counts), self._paths))

    def _begin(self) -> None:
        self._clear()
        self._paths.results.mkdir()
        self._log(sealed_record(self._facts))

    def _clear(self) -> None:
        if self._paths.results.is_dir():
            shutil.rmtree(self._paths.results)
        for path in self._paths:
            path.unlink(missing_ok=True)

    def _log(self, line: bytes) -> None:
        with self._paths.log.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _recover(self, progress: Callable[[int, int], None]) -> None:
        """Take the partitions that are there; the log is cut behind its last whole line."""
        folder, end, parts = self._paths.results, 0, list[Part]()
        for record, after in records(self._paths.log):
            end = after
            if isinstance(record, Part):
                parts.append(record)
        os.truncate(self._paths.log, end)
        if not folder.is_dir() and placed(self._output, self._facts):
            self.complete, folder = True, self._output
        total, looked = sum(part.results + part.rejects for part in parts), 0
        for part in parts:
            for kind, size, digest in zip(
                ("part", "rejects"), (part.results, part.rejects), part.digests, strict=True
            ):  # fmt: skip
                path = folder / part_name(kind, Key(part.stream, part.number))
                if size and not (path.is_file() and sha256(path) == digest):
                    raise SpecBeamError(
                        f"{path} was edited or removed: it is not what the interrupted run wrote. Put it back to go on "
                        f"with that run, {ANEW}."
                    )
                looked += size
                progress(looked, total)
            self._take(part)
        if self.complete:
            self._paths.log.unlink()
        else:
            folder.mkdir(exist_ok=True)


def read_manifest(folder: Path) -> Manifest:
    """What a folder of partitions says of itself. Raises `SpecBeamError` where it is none, or of another version."""
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise SpecBeamError(f"{path}: cannot be read: {error.strerror or error}. Check the path.") from None
    except DAMAGED as error:
        raise SpecBeamError(f"{path}: {error}; expected what `specbeam infer --ray` writes. Run it again.") from None
    if manifest.schema_version != PARTS_SCHEMA:
        raise SpecBeamError(
            f"{path} follows schema {manifest.schema_version}; this version reads {PARTS_SCHEMA}. Run it again."
        )
    return manifest


def placed(output: Path, facts: RunFacts) -> bool:
    """Whether a folder is the output of a run with these facts, which ended before it said so."""
    try:
        manifest = read_manifest(output)
    except SpecBeamError:
        return False
    return manifest.run == msgspec.json.decode(msgspec.json.encode(facts), type=RunFacts)
