"""Bundles of text: one model with its whole vocabulary, and its tokenizer."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...catalog import checks
from ...catalog.bounds import Positive, Whole, check_names
from ...catalog.errors import BundleError
from ...catalog.files import Frozen
from .export_command import export_command
from .facts import FileFacts, ModelFacts, Precision, Scoring
from .model import MANIFEST, ModelBundle, Sample, bundle_kind
from .sealed import Sealed, read_sealed

TOKENIZER_FILE = "tokenizer/tokenizer.json"
TEXTS = ("Board games", "A user who bought a desk lamp, two novels and a garden chair likes things that last.")


class TextPrompt(Frozen, frozen=True):
    """The text around every prompt, as it was compiled from a template and the tokenizer's chat template."""

    prefix: str
    suffix: str
    special: bool  # whether the tokenizer adds its own special tokens (a chat template has written them)


class TextManifest(Sealed, frozen=True, kw_only=True, tag_field="kind", tag="text"):
    """manifest.json of a text bundle."""

    specbeam_version: str
    precision: Precision
    opset: Positive
    target: ModelFacts
    prompt: TextPrompt
    end_tokens: tuple[Whole, ...]  # any of these ends a text
    vocabulary: Positive  # rows of the head, all of them columns of `logprobs`
    tree_path: Positive  # L: the most slots that a token of a draft may name; the depth of drafts, and one
    tokenizer_sha256: str  # `pools.tokenizer.fingerprint`
    files: dict[str, FileFacts]  # path in the bundle, "/" between parts; engines/ is not in it

    def __post_init__(self) -> None:
        check_names(self.files)
        if self.vocabulary != self.target.vocabulary or max(self.end_tokens, default=0) >= self.vocabulary:
            raise ValueError(
                f"got end tokens {self.end_tokens} and a vocabulary of {self.vocabulary}; the model's has "
                f"{self.target.vocabulary} tokens"
            )

    @property
    def draft(self) -> None:
        """There is none: pools draft."""
        return None

    @property
    def scoring(self) -> Scoring:
        """By all rows of the head."""
        return "full"

    @property
    def columns(self) -> int:
        """C: the width of a row of log-probabilities."""
        return self.vocabulary


class TextBundle(ModelBundle):
    """An opened bundle of one model that writes text."""

    manifest: TextManifest

    @classmethod
    def open(cls, path: str | Path) -> "TextBundle":
        """Read the manifest. Raises `BundleError` where it is absent, damaged, of another schema or of items."""
        path = checks.path(path, "bundle")
        if bundle_kind(path) != "text":
            raise BundleError(
                f"{path} is a bundle of items, whose model writes identifiers: specbeam infer {path}. For text, export "
                "a model with: specbeam export --text --target MODEL --output BUNDLE"
            )
        return cls(path, read_sealed(path / MANIFEST, TextManifest, export_command(path / MANIFEST)))

    def vocabulary(self) -> NDArray[np.int64]:
        return np.arange(self.manifest.vocabulary)

    def samples(self) -> list[Sample]:
        """Of some texts in the bundle's template; tokens of another text follow."""
        from tokenizers import Tokenizer

        tokenizer, around = Tokenizer.from_file(str(self.tokenizer_file())), self.manifest.prompt
        texts = [f"{around.prefix}{text}{around.suffix}" for text in TEXTS]
        prompts = [np.array(tokenizer.encode(text, add_special_tokens=around.special).ids, np.int64) for text in texts]
        following = np.unique(tokenizer.encode(" ".join(TEXTS), add_special_tokens=False).ids)
        return [Sample("a prompt of the bundle's template", prompt, following) for prompt in prompts if len(prompt)]

    def tokenizer_file(self) -> Path:
        """The tokenizer, for the `tokenizers` library."""
        return self.file(TOKENIZER_FILE)
