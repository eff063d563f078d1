"""Where a model to train comes from: fresh weights, or a checkpoint's, trained as a whole or under LoRA."""

import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...catalog.checks import whole_number
from ...catalog.errors import OptionError
from ...catalog.files import whole_directory
from ...catalog.identifiers import is_text
from ...catalog.items import Catalog
from ...export.checkpoint import Checkpoint
from ...export.hub import ADAPTER, Bar, origin, unseen
from ...export.local import Named, local
from ...export.quiet import quiet
from ...export.tokenizer import load_tokenizer
from .configs import Size
from .models import add_identifiers, build_model, build_tokenizer, load_with_rows
from .work import EVENTS

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Source(ABC):
    """A model to be trained."""

    epochs: ClassVar[float]  # by default
    rate: ClassVar[float]  # the default learning rate, times the hidden width

    @property
    @abstractmethod
    def origin(self) -> Path | None:
        """The checkpoint whose prompt it goes on with, unless told otherwise."""

    @abstractmethod
    def tokenizer(self, catalog: Catalog, text: str) -> PreTrainedTokenizerBase:
        """A tokenizer that knows the catalog's identifiers; `text` is what stands around them in prompts."""

    def check_prompt(self, *, chat: bool) -> None:  # noqa: B027 (most have nothing to say)
        """Raise `OptionError` where prompts need what the tokenizer will not have."""

    @abstractmethod
    def model(self, tokenizer: PreTrainedTokenizerBase, catalog: Catalog, context: int, seed: int) -> PreTrainedModel:
        """The model, with a row for every token; what is to be trained requires a gradient.

        `context`: positions that the prompts need. Torch's global generator is left as it was.
        """

    def write(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, output: Path, *, record: str, content: bytes,
        events: Path, overwrite: bool,
    ) -> None:  # fmt: skip
        """Write the trained model to `output`, whole or absent; with it the file `record`, and what `events` holds."""
        with whole_directory(output, kind=record, replace=overwrite, late=True) as part, quiet():
            self.save(model, tokenizer, part)
            if events.is_dir():
                shutil.copytree(events, part / EVENTS)
            (part / record).write_bytes(content)

    def save(self, model: Any, tokenizer: PreTrainedTokenizerBase, part: Path) -> None:
        """Write the trained model as a Hugging Face checkpoint (safetensors)."""
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


@final
@dataclass(frozen=True)
class FreshModel(Source):
    """Random weights of a given shape (see `configs.find_config`).

    Its tokenizer knows the identifiers and the words of the prompt and nothing else, unless it is that of
    the checkpoint `vocabulary`: a draft's must be its target's. Either may be a hub's (org/name[@revision]).
    """

    config: str | Path | Size
    vocabulary: Path | None = None
    epochs: ClassVar[float] = 10
    rate: ClassVar[float] = 0.5

    @property
    def origin(self) -> Path | None:
        return self.vocabulary

    def __post_init__(self) -> None:
        if self.vocabulary is not None:
            object.__setattr__(self, "vocabulary", local(self.vocabulary, "vocabulary", weights=False))

    def check_prompt(self, *, chat: bool) -> None:
        if chat and self.vocabulary is None:
            raise OptionError(
                "--chat needs a tokenizer with a chat template; fresh weights have one of the identifiers and the "
                "prompt's words alone. Give --tokenizer CHECKPOINT, or write the prompt out with --prompt."
            )

    def tokenizer(self, catalog: Catalog, text: str) -> PreTrainedTokenizerBase:
        if self.vocabulary is None:
            return build_tokenizer(catalog.tokens, text)
        tokenizer = load_tokenizer(self.vocabulary)
        add_identifiers(tokenizer, catalog)
        return tokenizer

    def model(self, tokenizer: PreTrainedTokenizerBase, catalog: Catalog, context: int, seed: int) -> PreTrainedModel:
        return build_model(self.config, tokenizer, context=context, seed=seed)


@final
@dataclass(frozen=True)
class Pretrained(Source):
    """A checkpoint's weights and tokenizer, all of them trained further; one of a hub is fetched at once."""

    directory: Path
    epochs: ClassVar[float] = 3
    rate: ClassVar[float] = 0.08

    @property
    def origin(self) -> Path:
        return self.directory

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", local(self.directory, "directory"))

    def tokenizer(self, catalog: Catalog, text: str) -> PreTrainedTokenizerBase:
        tokenizer = Checkpoint.open(self.directory).tokenizer
        add_identifiers(tokenizer, catalog)
        return tokenizer

    def model(self, tokenizer: PreTrainedTokenizerBase, catalog: Catalog, context: int, seed: int) -> PreTrainedModel:
        model = load_with_rows(self.directory, tokenizer, seed)
        model.requires_grad_(True)
        return model


@final
@dataclass(frozen=True)
class LoraModel(Source):
    """A decoder's checkpoint under LoRA adapters (Hu et al. 2021, arXiv 2106.09685) of a given rank.

    What is saved is the adapter, which `specbeam export` merges; a checkpoint that is a folder must stay where it is,
    and one of a hub is named with its commit.
    """

    directory: Path
    rank: int
    epochs: ClassVar[float] = 3
    rate: ClassVar[float] = 1.0

    @property
    def origin(self) -> Path:
        return self.directory

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", whole_number(self.rank, "rank"))
        object.__setattr__(self, "directory", local(self.directory, "directory"))

    def tokenizer(self, catalog: Catalog, text: str) -> PreTrainedTokenizerBase:
        if (self.directory / ADAPTER).is_file():
            raise OptionError(
                f"{self.directory} is a LoRA adapter itself. Give its base model's directory, or merge it first "
                "(merge_and_unload) and save the whole model."
            )
        return Pretrained(self.directory).tokenizer(catalog, text)

    def model(self, tokenizer: PreTrainedTokenizerBase, catalog: Catalog, context: int, seed: int) -> PreTrainedModel:
        from peft import LoraConfig, get_peft_model

        model = load_with_rows(self.directory, tokenizer, seed)
        if model.config.is_encoder_decoder:
            raise OptionError(
                f"{self.directory} is an encoder-decoder; LoRA is for decoders. Train it as a whole, without --lora."
            )
        ids: list[int] = []
        if not is_text(tokenizer, catalog):
            ids = sorted(tokenizer.get_vocab()[token] for token in catalog.tokens)
        names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
        if missing := [name for name in ("embed_tokens", *PROJECTIONS) if name not in names]:
            raise OptionError(
                f"{self.directory} is a {type(model).__name__}, which has no {', '.join(missing)}; LoRA here adapts "
                "decoders that have. Train the whole model: leave --lora out."
            )
        modules = ["embed_tokens"] if model.config.tie_word_embeddings else ["embed_tokens", "lm_head"]
        config = LoraConfig(
            r=self.rank, lora_alpha=2 * self.rank, target_modules=PROJECTIONS, task_type="CAUSAL_LM",
            trainable_token_indices=dict.fromkeys(modules, ids) if ids else None,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            wrapped: Any = get_peft_model(model, config)
        config, found = wrapped.peft_config["default"], origin(self.directory)
        base = found.split("@") if found else (str(self.directory.resolve()), None)
        config.base_model_name_or_path, config.revision = base
        return wrapped  # type: ignore[no-any-return]  # behaves as a model

    def save(self, model: Any, tokenizer: PreTrainedTokenizerBase, part: Path) -> None:
        model.save_pretrained(part, save_embedding_layers=False)  # the identifiers' rows are saved as such
        tokenizer.save_pretrained(part)
        (part / "README.md").unlink(missing_ok=True)  # an empty model card


def find_source(
    config: str | None, start: Named | None, lora: int | None, tokenizer: Named | None, bar: Bar = unseen
) -> Source:
    """The source that a command asks for; what is a hub's is fetched, which `bar` shows.

    Raises `OptionError` for what cannot be combined, and as `local` does.
    """
    if (config is None) == (start is None):
        got = "neither" if config is None else "both"
        raise OptionError(f"training needs either --config (fresh weights) or --from (a checkpoint's); got {got}.")
    if config is not None:
        if lora is not None:
            raise OptionError("LoRA adapts the weights of a checkpoint: give --from with --lora, not --config.")
        return FreshModel(config, None if tokenizer is None else local(tokenizer, "tokenizer", weights=False))
    assert start is not None
    if tokenizer is not None:
        raise OptionError("a checkpoint's weights belong to its own tokenizer: leave --tokenizer out with --from.")
    folder = local(start, "start", bar=bar)
    return Pretrained(folder) if lora is None else LoraModel(folder, lora)
