"""Every file of an artifact against its hash: what is damaged, what is missing, and what nobody has listed."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ...catalog.bounds import Size
from ...catalog.errors import BundleError, SpecBeamError, said
from ...catalog.files import Frozen
from .checksums import check_file
from .default import DEFAULT_FILE, choosing, recorded_default
from .export_command import export_command
from .facts import ENGINE_FACTS, FileFacts
from .measured import MEASURED_SCHEMA, Measured, is_of, measured_files
from .model import MANIFEST, ModelBundle
from .open import open_bundle
from .sealed import check_seal, read_sealed


class Damage(Frozen, frozen=True):
    """A file that is not as it was written."""

    file: str  # its path in the artifact
    fault: str
    remedy: str  # the command that writes it again


class Checked(Frozen, frozen=True):
    """What came of a check."""

    listed: bool  # False: what lists the files is damaged itself, so that none of them was looked at
    files: Size  # looked at
    bytes: Size  # they should have
    damaged: tuple[Damage, ...]
    unlisted: tuple[str, ...]  # files in the artifact that nothing lists, and nothing reads

    def described(self) -> str:
        """A line or more of text."""
        faults = [f"  {damage.fault}" for damage in self.damaged]
        strange = [f"  {file}: is listed nowhere, and nothing reads it" for file in self.unlisted]
        size = f"{self.files:,} files, {self.bytes / 1e6:,.1f} MB"
        if not faults:
            return "\n".join([f"checksums: {size}: all are as they were written", *strange])
        return "\n".join([
            f"checksums: {size}: {len(faults)} damaged. Copy these again from where they came from, or do as is said:",
            *faults, *strange,
        ])  # fmt: skip


class Listed(NamedTuple):
    """A file, and what is said of it."""

    name: str
    facts: FileFacts
    remedy: str


@dataclass
class Checklist:
    """What there is to check of an artifact, and what was found to be wrong while that was listed."""

    root: Path
    listed: list[Listed] = field(default_factory=list)
    sealed: list[str] = field(default_factory=list)  # files that prove themselves, and were looked at
    unknown: list[str] = field(default_factory=list)  # folders whose list is damaged
    damaged: list[Damage] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Of the listed files: what `run` reads at most."""
        return sum(one.facts.bytes for one in self.listed)

    @contextmanager
    def looking_at(self, name: str, remedy: str) -> Iterator[None]:
        """Note what turns out to be wrong with a file."""
        try:
            yield
        except SpecBeamError as error:
            self.damaged.append(Damage(file=name, fault=str(error), remedy=remedy))
        except OSError as error:
            fault = f"{self.root / name} cannot be read: {said(error)}. Write it again with: {remedy}"
            self.damaged.append(Damage(file=name, fault=fault, remedy=remedy))

    def list_files(self, files: Mapping[str, FileFacts], remedy: str, folder: str = "") -> None:
        """Files of a folder of the artifact, "" or such as "engines/x/"."""
        self.listed += [Listed(folder + name, facts, remedy) for name, facts in sorted(files.items())]

    def run(self, told: Callable[[int], object] = lambda size: None) -> Checked:
        """Read every file; told: of every piece that was read, its size."""
        for name, facts, remedy in self.listed:
            with self.looking_at(name, remedy):
                check_file(self.root / name, facts, remedy, self.root, told, anew=True)
        return Checked(
            listed="" not in self.unknown, files=len(self.listed) + len(self.sealed), bytes=self.bytes,
            damaged=tuple(self.damaged), unlisted=tuple(sorted(self._unlisted())),
        )  # fmt: skip

    def _unlisted(self) -> Iterator[str]:
        """Files that nobody knows; hidden ones are temporary (or a lock, or of an editor)."""
        known = {*self.sealed, *(one.name for one in self.listed)}
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for file in files:
                name = (Path(folder) / file).relative_to(self.root).as_posix()
                if name not in known and not file.startswith(".") and not name.startswith(tuple(self.unknown)):
                    yield name


def bundle_checklist(path: Path) -> Checklist:
    """What there is to check of a bundle. Raises `BundleError` where there is none."""
    found = Checklist(path, sealed=[MANIFEST])
    try:
        bundle = open_bundle(path)
    except BundleError as error:
        if not (path / MANIFEST).is_file():
            raise
        found.damaged.append(Damage(file=MANIFEST, fault=str(error), remedy=export_command(path / MANIFEST)))
        found.unknown.append("")  # all of it
        return found
    found.list_files(bundle.manifest.files, bundle.reexport())
    for name in bundle.engine_names():
        _list_engine(found, bundle, name)
    if (path / DEFAULT_FILE).is_file():
        found.sealed.append(DEFAULT_FILE)
        with found.looking_at(DEFAULT_FILE, choosing(bundle)):
            recorded_default(bundle)
    return found


def _list_engine(found: Checklist, bundle: ModelBundle, name: str) -> None:
    """An engine's files, and what was tuned for it."""
    folder = f"engines/{name}/"
    found.sealed.append(folder + ENGINE_FACTS)
    found.unknown.append(folder)
    with found.looking_at(folder + ENGINE_FACTS, bundle.rebuild(name)):
        facts = bundle.built_facts(name)
        found.list_files(facts.files, bundle.rebuild(name, facts), folder)
        found.unknown.remove(folder)
    for file in sorted((bundle.path / folder).glob("tuning-*.json")):
        found.sealed.append(folder + file.name)
        tune = f"specbeam tune {bundle.path} HISTORIES --engine {name}"
        with found.looking_at(folder + file.name, tune):
            check_seal(file, tune)
    for file in measured_files(bundle.path / folder):
        again = bundle.finishing(name)
        found.sealed.append(folder + file.name)
        with found.looking_at(folder + file.name, again):
            measured = read_sealed(file, Measured, again, MEASURED_SCHEMA)
            if not is_of(measured, bundle.built_facts(name)):
                raise BundleError(f"{file} was measured of another engine than this one. Write it again with: {again}")
            found.list_files(measured.files, again, folder)
