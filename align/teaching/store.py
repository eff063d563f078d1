"""Teacher data: the target's beam trees over all places, written part by part, and gone on with where it stopped."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import msgspec
import numpy as np

from ...catalog.bounds import DAMAGED
from ...catalog.errors import DiskFullError, SpecBeamError
from ...catalog.files import whole_file
from ...catalog.prompts.encoder import PromptEncoder
from ...catalog.trie import ItemTrie
from ...runtime.types import Int64
from ..training.samples import Format
from .lessons import Places
from .searcher import BATCH, Searcher, truth_paths
from .trees import SETTINGS, TeacherSettings, Trees, TreeStore, joined

PART = 512  # prompts a file: what an interruption costs at most

Progress = Callable[[str, int, int | None], None]


def open_store(folder: Path, target: Sequence[Path], form: Format, places: Places, width: int) -> TreeStore:
    """The store for the trees of a target (its folders of weights) at these places; what is in it already is kept.

    Raises `SpecBeamError` where the folder holds trees of another target, other prompts or other histories.
    """
    settings = TeacherSettings(
        fingerprint=f"target {weights_digest(target)}, prompts {form_digest(form)}, histories {places.digest()}",
        width=width, samples=len(places), part=PART,
    )  # fmt: skip
    store, file = TreeStore(folder, form.identifiers.trie, settings), folder / SETTINGS
    if file.is_file():
        try:
            before = msgspec.json.decode(file.read_bytes(), type=TeacherSettings)
        except DAMAGED as error:
            raise SpecBeamError(f"{file} is damaged: {error}. Remove {folder}: its trees are made anew.") from None
        if before != settings:
            old, new = (json.loads(msgspec.json.encode(s)) for s in (before, settings))
            differing = "; ".join(f"{name} {old[name]}, now {new[name]}" for name in new if old[name] != new[name])
            raise SpecBeamError(f"{folder} holds other trees ({differing}). Remove it or choose another --teacher.")
    else:
        with _room(folder, 0, store.parts), whole_file(file, replace=False) as out:
            out.write(msgspec.json.format(msgspec.json.encode(settings), indent=1))
    return store


def fill(store: TreeStore, teacher: Searcher, places: Places, form: Format, progress: Progress) -> None:
    """Make the trees that the store lacks.

    Raises `SpecBeamError` where the disk is full or it is interrupted; the parts that were written stay and are not
    made again.
    """
    prompts = PromptEncoder(form.spec, form.identifiers.tokens, form.longest)
    missing = store.missing()
    done, kept = store.settings.samples - sum(len(store.span(part)) for part in missing), store.parts - len(missing)
    for part in missing:
        progress("teacher trees", done, store.settings.samples)
        samples = np.array(store.span(part))
        try:
            trees = _searched(teacher, places, form.identifiers.trie, prompts, samples)
        except KeyboardInterrupt:
            raise SpecBeamError(
                f"Interrupted with {kept} of {store.parts} parts of the teacher data in {store.folder}. They stay: run "
                "the same command again to go on from there."
            ) from None
        with _room(store.folder, kept, store.parts):
            store.write(part, trees)
        done, kept = done + len(samples), kept + 1
    progress("teacher trees", done, store.settings.samples)


def _searched(teacher: Searcher, places: Places, trie: ItemTrie, prompts: PromptEncoder, samples: Int64) -> Trees:
    """The trees of some places, searched in order of length, which saves padding."""
    order = np.argsort(places.place[samples], kind="stable")
    found = []
    for first in range(0, len(order), BATCH):
        chosen = samples[order[first : first + BATCH]].tolist()
        ids = [prompts.encode(places.history(sample)).ids for sample in chosen]
        truth = trie.leaf_of[places.next_items(chosen)].astype(np.int64)
        found.append(teacher.trees(ids, truth_paths(trie, truth)))
    return joined(found).taken(np.argsort(order), trie)


@contextmanager
def _room(folder: Path, done: int, parts: int) -> Iterator[None]:
    """Turn a full disk into an error that says what is there and what to do."""
    try:
        yield
    except (OSError, DiskFullError) as error:
        remedy = "Free some space there" if isinstance(error, DiskFullError) else "Mend that"
        raise SpecBeamError(
            f"Teacher data could not be written to {folder}: {error}. {done} of {parts} parts are there and "
            f"stay. {remedy} (or name another folder with --teacher) and run the same command again: it goes on from "
            "there."
        ) from error


def weights_digest(folders: Sequence[Path]) -> str:
    """Tells one target's weights from another's: a checkpoint's, or an adapter's and its base model's."""
    hashed = blake2b(digest_size=8)
    for path in (path for folder in folders for path in sorted(folder.glob("*.safetensors"))):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                hashed.update(block)
    return hashed.hexdigest()


def form_digest(form: Format) -> str:
    """Tells one way to write prompts and identifiers from another."""
    spec = msgspec.json.encode(form.spec)
    return blake2b(spec + form.identifiers.tokens.tobytes(), digest_size=8).hexdigest()
