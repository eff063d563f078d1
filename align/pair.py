"""The pair of an alignment: the target as it will serve, and the draft as it begins to learn."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..catalog.histories.dataset import Dataset
from ..catalog.identifiers import Warn
from ..catalog.prompts.options import PromptOptions
from ..engines.decoder_facts import context_of
from ..engines.torch import TorchEngine
from ..engines.torch_encoder_decoder import TorchEncoderDecoder, torch_engine
from ..export.bundle import check_same_tokens
from ..export.checkpoint import Checkpoint
from ..export.quiet import quiet
from ..export.trained import Trained
from .training.budget import TrainingBudget, chosen_settings, usable_precision
from .training.models import check_context, hidden_width
from .training.samples import Format
from .training.sources import Source
from .training.train import settle

RATE = 0.4  # the default learning rate, times the hidden width


@dataclass(frozen=True, eq=False)
class Pair:
    """Both models, and what they agree on."""

    target: TorchEngine | TorchEncoderDecoder
    draft: PreTrainedModel
    form: Format  # prompts and identifiers, in tokens that both have
    tokenizer: Any  # the draft's
    folders: tuple[Path, ...]  # that hold the target's weights
    budget: TrainingBudget
    seed: int

    @classmethod
    def open(
        cls, dataset: Dataset, target: Path, draft: Source, asked: PromptOptions, trained: Trained | None,
        budget: Mapping[str, Any] | None, warn: Warn,
    ) -> "Pair":  # fmt: skip
        """asked: the prompt; trained: what it must be (None: anything). Raises `SpecBeamError` where their tokens
        differ, or a context does not hold the prompts."""
        chosen, seed = chosen_settings({"weight_decay": 0.01, "batch": 32, **chosen_settings(budget)[0]})
        with quiet():
            source = Checkpoint.open(target)
            form = Format.compile(source.tokenizer, dataset.catalog, asked, warn)
            if trained is not None:
                trained.check(form.spec)
            tokenizer = draft.tokenizer(dataset.catalog, "")
            check_same_tokens(dataset.catalog, form.identifiers, source.tokenizer, tokenizer, asked.join)
            model = draft.model(tokenizer, dataset.catalog, form.longest, seed)
            settings = settle(draft, hidden_width(model), {"learning_rate": RATE / hidden_width(model), **chosen})
            engine = target_engine(source, dataset, form, settings)
        for context in (source.context, context_of(model.config)):
            check_context(context, form.longest, asked.history_length)
        folders = (target,) if source.adapter is None else (target, source.adapter.base)
        return cls(engine, model, form, tokenizer, folders, settings, seed)


def target_engine(
    source: Checkpoint, dataset: Dataset, form: Format, budget: TrainingBudget
) -> TorchEngine | TorchEncoderDecoder:
    """The target, where there is a GPU on it, in the precision that the draft trains in."""
    precision = usable_precision(budget.precision)
    model = source.load(precision, dataset.catalog.tokens)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.nn.Module.to(model, device)
    return torch_engine(model, form.identifiers.trie.vocabulary, precision=precision, threads=0)
