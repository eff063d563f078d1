"""A pair of checkpoints and a catalog to a bundle, whole or not at all."""

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from .. import __version__
from ..catalog import checks
from ..catalog.errors import CatalogError, ExportError
from ..catalog.files import check_replaceable, whole_directory
from ..catalog.identifiers import (
    Identifiers,
    Warn,
    compile_identifiers,
    identifier_ids,
    is_glued,
    is_text,
    joined,
    token_counts,
)
from ..catalog.items import Catalog
from ..catalog.prompts.compile import compile_prompt
from ..catalog.prompts.encoder import PromptEncoder, PromptSpec
from ..catalog.prompts.options import PromptOptions
from ..catalog.trie import PAD
from ..catalog.trie_file import check_agreement, save_trie
from ..engines.bundle.checksums import file_facts
from ..engines.bundle.facts import ModelFacts
from ..engines.bundle.items import CATALOG_FILE, TRIE_FILE, Manifest
from ..engines.bundle.model import MANIFEST
from ..engines.bundle.sealed import SCHEMA_VERSION, sealed
from ..engines.torch import DTYPES
from .checkpoint import Checkpoint
from .model import GraphSettings, Progress, export_model
from .onnx import EXTERNAL_BYTES, OPSET
from .quiet import quiet
from .trained import Trained, as_trained, warn_of_draft

SHOWN = 5  # how many tokens a message names
MILLION = 10**6
SAMPLE_ITEMS = 3  # of the history whose prompt is shown
CHOICES: dict[str, Collection[str]] = {
    "precision": DTYPES,
    "end_token": ("auto", "always", "never"),
    "scoring": ("full", "constrained"),
}


def export_bundle(
    target: Path,
    draft: Path | None,
    catalog: Path,
    items: Path | None,
    output: Path,
    *,
    other_prompt: bool = False,
    scoring: str = "full",
    max_top_k: int = 200,
    precision: str = "fp32",
    checkpoints: bool = True,
    overwrite: bool = False,
    external_bytes: int = EXTERNAL_BYTES,
    progress: Progress = lambda stage: None,
    **prompt: Any,
) -> Manifest:
    """Export `target` and `draft` for the items of `catalog` (an index.json) to the directory `output`.

    `items` holds titles; `prompt` are fields of `PromptOptions`, the others being as the target was
    trained (see `trained.as_trained`, also for `other_prompt`); `scoring` is what requests get that ask for
    none, and `max_top_k` the most items that they may ask for;
    `checkpoints` keeps copies for the torch engine; weights beyond `external_bytes` lie beside their
    graph. `progress` is told each stage. Every graph is compared with its model before anything appears
    under `output`. Raises `SpecBeamError` (mostly `ExportError`) with the reason and the remedy, and
    leaves nothing behind.
    """
    target, catalog, output = (
        checks.path(p, n) for p, n in ((target, "target"), (catalog, "catalog"), (output, "output"))
    )
    draft, items = (None if p is None else checks.path(p, n) for p, n in ((draft, "draft"), (items, "items")))
    check_flags(other_prompt=other_prompt, checkpoints=checkpoints, overwrite=overwrite)
    checks.whole_number(external_bytes, "external_bytes", 0)
    _check_options(max_top_k, precision=precision, end_token=prompt.get("end_token", "auto"), scoring=scoring)
    trained = Trained.of(target)
    options = as_trained(trained, prompt, other_prompt=other_prompt, warn=partial(warning, progress))
    check_replaceable(output, kind=MANIFEST, replace=overwrite)  # before the work; whole_directory checks again
    progress("reading the catalog")
    recommendable = Catalog.load(catalog, items, _told_of_many(progress))
    sources = {role: Checkpoint.open(path) for role, path in (("target", target), ("draft", draft)) if path is not None}
    warn_of_draft(draft, options, partial(warning, progress))
    with quiet():
        identifiers = _compile_identifiers(recommendable, sources, options)
        spec = compile_prompt(
            sources["target"].tokenizer, recommendable, options, partial(warning, progress), identifiers.tokens
        )
    if trained is not None and not other_prompt:
        trained.check(spec)
    elif trained is None and options.prompt is None:
        _warn_of_texts_end(sources["target"], partial(warning, progress))
    for note in (note for source in sources.values() for note in source.notes):
        progress(note)
    progress(_summary(identifiers))
    room = min(source.context for source in sources.values()) - identifiers.trie.length + 1
    encoder = PromptEncoder(spec, identifiers.tokens, room)  # raises when the longest item does not fit
    _show(sources["target"].tokenizer, recommendable, identifiers, encoder, options.join, progress)
    with whole_directory(output, kind=MANIFEST, replace=overwrite) as part:
        progress("writing the catalog")
        recommendable.save(part / CATALOG_FILE)
        check_agreement(recommendable, identifiers.trie, identifiers.end_token)
        save_trie(identifiers.trie, part / TRIE_FILE)
        settings = GraphSettings(precision, checkpoints, external_bytes, progress)
        columns = identifiers.trie.vocabulary
        facts = {
            role: export_model(
                role, source, columns, part / role, settings,
                trained=source.tokenizer.convert_ids_to_tokens(columns.tolist()),
            )
            for role, source in sources.items()
        }  # fmt: skip
        progress("hashing its files, and writing the manifest")
        manifest = _manifest(part, facts, spec, identifiers, precision, scoring, room, max_top_k)
        manifest = replace(manifest, prompt_options=options, trained_prompt=trained and trained.prompt)
        (part / MANIFEST).write_bytes(sealed(manifest))
    return manifest


def _warn_of_texts_end(target: Checkpoint, warn: Warn) -> None:
    """Tell of an encoder whose tokenizer ends texts by itself, where prompts are no texts of it."""
    tokenizer = target.tokenizer
    if target.config.is_encoder_decoder and tokenizer("")["input_ids"][-1:] == [tokenizer.eos_token_id]:
        warn(
            f"prompts are the items alone, and the tokenizer ends texts with {tokenizer.eos_token}. If the model was "
            "trained on its texts: --prompt '{history}'"
        )


def check_flags(**flags: bool) -> None:
    """Raise `OptionError` for what is neither true nor false."""
    for name, value in flags.items():
        checks.flag(value, name)


def _check_options(max_top_k: int, **choices: str) -> None:
    for name, choice in choices.items():
        if not isinstance(choice, str) or choice not in CHOICES[name]:
            expected = ", ".join(CHOICES[name])
            raise ExportError(f"The {name.replace('_', ' ')} {choice!r} is unknown; choose one of {expected}.")
    if checks.whole_number(max_top_k, "max_top_k", 0) < 1:
        raise ExportError(f"The longest list that requests may ask for is {max_top_k}; expected at least 1.")


def warning(progress: Progress, text: str) -> None:
    """Tell what is harmless, but may not be meant."""
    progress(f"WARNING: {text}")


def _told_of_many(progress: Progress) -> Callable[[int], None]:
    """Tells how many items of a large catalog have been read, each time it is a million more."""
    told = [0]

    def read(items: int) -> None:
        if items // MILLION > told[-1]:
            told.append(items // MILLION)
            progress(f"reading the catalog: {items:,} entries")

    return read


def _compile_identifiers(catalog: Catalog, sources: dict[str, Checkpoint], options: PromptOptions) -> Identifiers:
    """The catalog's identifiers in the target's ids, which must be the draft's, too."""
    target = sources["target"].tokenizer
    identifiers = compile_identifiers(target, catalog, options.end_token, options.join)
    if "draft" in sources:
        check_same_tokens(catalog, identifiers, target, sources["draft"].tokenizer, options.join)
    return identifiers


def _show(
    tokenizer: PreTrainedTokenizerBase, catalog: Catalog, identifiers: Identifiers, encoder: PromptEncoder, join: str,
    progress: Progress,
) -> None:  # fmt: skip
    """Tell of one identifier and one prompt, as text and as ids, to be held against what the model was trained on."""
    item = int(catalog.identifiers.lengths.argmax())
    progress(
        f"identifier of item {catalog.item_ids[item]}: {list(catalog.identifiers[item])}, joined by {join!r}: "
        f"{joined(catalog, item, join)!r}, ids {_unpadded(identifiers.tokens[item])}"
    )
    if is_text(tokenizer, catalog) and is_glued(catalog, join, encoder.spec.separator):
        remedy = "If the model knows them apart: --join, --separator"
        warning(progress, f"strings or items run together as one word. {remedy}")
    history = range(min(SAMPLE_ITEMS, len(catalog.item_ids)))
    ids = encoder.encode(history).ids.tolist()
    progress(f"prompt of items {', '.join(catalog.item_ids[item] for item in history)}: {shown(tokenizer, ids)}")


def shown(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """Token ids as text, special tokens included, and as they are."""
    return f"{tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)!r}, ids {ids}"


def _summary(identifiers: Identifiers) -> str:
    """What was found of the identifiers, in a line."""
    lengths = token_counts(identifiers.tokens)
    tokens = f"{lengths.min()} to {lengths.max()}" if lengths.min() < lengths.max() else f"{lengths.max()}"
    end = "no end token" if identifiers.end_token is None else f"the end token {identifiers.end_token}"
    return f"{len(lengths):,} items, {identifiers.trie.identifiers:,} identifiers of {tokens} tokens, {end}"


def check_same_tokens(
    catalog: Catalog, identifiers: Identifiers, target: PreTrainedTokenizerBase, draft: PreTrainedTokenizerBase,
    join: str = "",
) -> None:  # fmt: skip
    """The draft must know the catalog's tokens, and the end token, by the target's ids.

    `identifiers` are the target's. Raises `ExportError` with what differs.
    """
    own = draft.get_vocab()
    if is_text(target, catalog):
        _check_same_text(catalog, identifiers, draft, join)
    else:
        _check_same_vocabulary(catalog, target.get_vocab(), own)
    end = own.get(str(draft.eos_token or ""))
    if identifiers.end_token not in (None, end):
        raise ExportError(
            f"The target ends identifiers with its eos token {target.eos_token!r} ({identifiers.end_token}), the "
            f"draft's eos token is {draft.eos_token!r} ({end}). They must have one id: train both with one tokenizer."
        )


def _check_same_text(catalog: Catalog, identifiers: Identifiers, draft: PreTrainedTokenizerBase, join: str) -> None:
    """Raise `ExportError` unless the draft's tokenizer takes the identifiers apart as the target's did."""
    try:
        ids = identifier_ids(draft, catalog, join)
    except CatalogError as error:
        raise ExportError(f"The draft's tokenizer does not fit the catalog: {error}") from error
    width = max(ids.shape[1], identifiers.tokens.shape[1])
    got, expected = (
        np.pad(table, ((0, 0), (0, width - table.shape[1])), constant_values=PAD) for table in (ids, identifiers.tokens)
    )
    other = np.flatnonzero((got != expected).any(axis=1))
    if len(other):
        item = int(other[0])
        raise ExportError(
            f"Target and draft give the identifiers of {len(other)} items different ids, item "
            f"{catalog.item_ids[item]!r} ({joined(catalog, item, join)!r}) for example: target "
            f"{_unpadded(expected[item])}, draft {_unpadded(got[item])}. Train both with one tokenizer."
        )


def _unpadded(ids: NDArray[np.int64]) -> list[int]:
    return [number for number in ids.tolist() if number != PAD]


def _check_same_vocabulary(catalog: Catalog, target: dict[str, int], draft: dict[str, int]) -> None:
    """Raise `ExportError` unless every token of the catalog has one id in both vocabularies; the target's is whole."""
    faults = []
    missing = [token for token in catalog.tokens if token not in draft]
    if missing:
        faults.append(f"{len(missing)} are missing in the draft's tokenizer: {_some(missing)}")
    other = [
        f"{token} (target {target[token]}, draft {draft[token]})"
        for token in catalog.tokens
        if token in draft and target[token] != draft[token]
    ]
    if other:
        faults.append(f"{len(other)} have different ids: {_some(other)}")
    if faults:
        raise ExportError(
            f"Of the catalog's {len(catalog.tokens)} tokens {'; '.join(faults)}. Target and draft must know every "
            "identifier token of the catalog by the same id: give the index.json they were trained on, and train both "
            "with one tokenizer."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f", and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _manifest(
    part: Path,
    facts: dict[str, ModelFacts],
    prompt: PromptSpec,
    identifiers: Identifiers,
    precision: str,
    scoring: str,
    room: int,
    max_top_k: int,
) -> Manifest:
    trie = identifiers.trie
    return Manifest(
        schema_version=SCHEMA_VERSION,
        specbeam_version=__version__,
        precision=precision,  # type: ignore[arg-type]  # checked on entry
        scoring=scoring,  # type: ignore[arg-type]  # checked on entry
        opset=OPSET,
        target=facts["target"],
        draft=facts.get("draft"),
        prompt=prompt,
        items=len(trie.item),
        identifiers=trie.identifiers,
        identifier_length=trie.length,
        end_token=identifiers.end_token,
        catalog_tokens=len(trie.vocabulary),
        max_prompt_tokens=room,
        max_top_k=max_top_k,
        files=file_facts(part),
    )
