"""Bundles of items: models that write identifiers, with their catalog, its trie and the prompts of histories."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from ...catalog import checks
from ...catalog.bounds import Positive, Whole, check_names
from ...catalog.errors import BundleError, CatalogError
from ...catalog.items import Catalog
from ...catalog.prompts.encoder import PromptEncoder, PromptSpec
from ...catalog.prompts.item_tokens import TrieTokens
from ...catalog.prompts.options import PromptOptions
from ...catalog.trie import ItemTrie
from ...catalog.trie_file import check_agreement, load_trie
from .checksums import looked_at_once
from .export_command import CATALOG_FILE as CATALOG_FILE
from .export_command import LINES_FILE as LINES_FILE
from .export_command import export_command
from .facts import (
    FileFacts,
    ModelFacts,
    Precision,
    Scoring,
)
from .model import MANIFEST, ModelBundle, Sample, bundle_kind
from .sealed import Sealed, read_sealed

TRIE_FILE = "catalog/trie.safetensors"
SAMPLES = 4
LOOKED_AT = 1  # the version of what is looked at in a catalog and its trie: what passed another one is looked at again


class Manifest(Sealed, frozen=True, kw_only=True):
    """manifest.json: everything the runtime must know before it loads a graph."""

    specbeam_version: str
    precision: Precision
    scoring: Scoring  # what a request gets that asks for none
    opset: Positive
    target: ModelFacts
    draft: ModelFacts | None
    prompt: PromptSpec
    items: Positive
    identifiers: Positive
    identifier_length: Annotated[int, msgspec.Meta(ge=1, le=10_000)]  # of the longest: tokens, the end token included
    end_token: Whole | None  # behind every identifier that is generated, not in prompts; None: there is none
    catalog_tokens: Positive
    max_prompt_tokens: Positive
    max_top_k: Positive  # the longest list that a request may ask for
    files: dict[str, FileFacts]  # path in the bundle, "/" between parts; engines/ is not in it
    prompt_options: PromptOptions | UnsetType = UNSET  # that `prompt` was made from; older bundles do not say
    trained_prompt: PromptOptions | UnsetType | None = UNSET  # what the target was trained with; None: unknown

    def __post_init__(self) -> None:
        check_names(self.files)
        models = [model for model in (self.target, self.draft) if model is not None]
        prompt = (*self.prompt.prefix_ids, *self.prompt.separator_ids, *self.prompt.suffix_ids)
        vocabulary, context = min(m.vocabulary for m in models), min(m.context for m in models)
        if max(prompt, default=0) >= vocabulary:
            raise ValueError(f"the prompt has token {max(prompt)}, the models' vocabularies {vocabulary} tokens")
        if self.max_prompt_tokens + self.identifier_length - 1 > context:
            raise ValueError(
                f"a prompt of {self.max_prompt_tokens} tokens and an identifier of {self.identifier_length} exceed the "
                f"context of {context} positions"
            )

    @property
    def tree_path(self) -> int:
        """L: the most slots that a token names besides its prompt's (`ForwardInputs.visible_slots`)."""
        return self.identifier_length

    @property
    def columns(self) -> int:
        """C: the width of a row of log-probabilities."""
        return self.catalog_tokens


class Bundle(ModelBundle):
    """An opened bundle of models that write identifiers, with their catalog."""

    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """Read the manifest. Raises `BundleError` where it is absent, damaged, of another schema or of text."""
        path = checks.path(path, "bundle")
        if bundle_kind(path) != "items":
            raise BundleError(f"{path} is a text bundle, which has no catalog. It is for: specbeam generate {path}")
        return cls(path, read_sealed(path / MANIFEST, Manifest, export_command(path / MANIFEST)))

    def vocabulary(self) -> NDArray[np.int64]:
        return self.trie().vocabulary

    def samples(self) -> list[Sample]:
        """Of histories of 1 to as many items as a prompt holds, drawn from the catalog; items' first tokens follow."""
        trie, rng = self.trie(), np.random.default_rng(0)
        prompts = self.prompts(trie)
        following = trie.tokens(rng.permutation(np.arange(trie.level_start[1], trie.level_start[2])))
        lengths = np.unique(np.linspace(1, prompts.max_items, SAMPLES).round().astype(int)).tolist()
        histories = [rng.integers(len(trie.item), size=length) for length in lengths]
        return [
            Sample(f"the prompt of a history (length {len(h)})", prompts.encode(h).ids, following) for h in histories
        ]

    def catalog(self) -> Catalog:
        """The catalog by itself; see `items`."""
        name = LINES_FILE if LINES_FILE in self.manifest.files else CATALOG_FILE
        path = self.file(name)
        if name == LINES_FILE:
            return Catalog.open(path)
        catalog = Catalog.open(path, looked_at=True)
        self._look("catalog", (name,), lambda: catalog.check(path))
        return catalog

    def trie(self) -> ItemTrie:
        """The trie, every number in it checked. Raises `BundleError` where it is none, or not this bundle's."""
        path = self.file(TRIE_FILE)
        try:
            self._look("trie", (TRIE_FILE,), lambda: self._check_trie(path, load_trie(path)))
            return load_trie(path, looked_at=True)
        except CatalogError as error:
            raise BundleError(f"{path} is damaged: {error}. Write it again with: {self.reexport()}") from None

    def _look(self, what: str, names: tuple[str, ...], look: Callable[[], None]) -> None:
        """Look at what is in files, once as long as they do not change: see `looked_at_once`."""
        files = {name: self.manifest.files[name] for name in names}
        looked_at_once(self.path, f"{what} {LOOKED_AT} {self.manifest.checksum}", files, look)

    def _check_trie(self, path: Path, trie: ItemTrie) -> None:
        manifest = self.manifest
        got = len(trie.item), trie.identifiers, trie.length, len(trie.vocabulary)
        expected = manifest.items, manifest.identifiers, manifest.identifier_length, manifest.catalog_tokens
        if got != expected:
            raise BundleError(
                f"{path} has {_sizes(got)}; {MANIFEST} says {_sizes(expected)}. Write it again with: {self.reexport()}"
            )
        vocabulary = min(model.vocabulary for model in (manifest.target, manifest.draft) if model is not None)
        if trie.vocabulary[-1] >= vocabulary or not trie.ends_with(manifest.end_token):
            raise BundleError(
                f"{path} has tokens up to {trie.vocabulary[-1]}, expected below {vocabulary}, and of the end token "
                f"({manifest.end_token}) one behind every identifier. Write it again with: {self.reexport()}"
            )

    def items(self) -> tuple[Catalog, ItemTrie]:
        """The catalog and its trie. Raises `BundleError` where they are not of the same items."""
        catalog, trie = self.catalog(), self.trie()
        name = LINES_FILE if LINES_FILE in self.manifest.files else CATALOG_FILE
        try:
            self._look("agreement", (name, TRIE_FILE), lambda: check_agreement(catalog, trie, self.manifest.end_token))
        except CatalogError as error:
            raise BundleError(
                f"{self.path / name} is of another catalog than {TRIE_FILE}: {error}. Write both again with: "
                f"{self.reexport()}"
            ) from None
        return catalog, trie

    def prompts(self, trie: ItemTrie) -> PromptEncoder:
        """The encoder of histories, as the bundle was exported: identifiers in prompts have no end token."""
        manifest = self.manifest
        return PromptEncoder(manifest.prompt, TrieTokens(trie, manifest.end_token), manifest.max_prompt_tokens)


def of_items(bundle: ModelBundle, what: str) -> Bundle:
    """A bundle that must be one of items; raises `BundleError`: `what` cannot be had for text."""
    if not isinstance(bundle, Bundle):
        raise BundleError(f"{bundle.path} is a text bundle, for which there is no {what} yet.")
    return bundle


def _sizes(sizes: tuple[int, int, int, int]) -> str:
    return "{} items, {} identifiers of at most {} tokens, {} distinct tokens".format(*sizes)
