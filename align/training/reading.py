"""How a model takes a prompt and what follows it: as one sequence, or the prompt through an encoder."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from transformers import PretrainedConfig

from .order import Int64
from .samples import IGNORED, Row

Batch = dict[str, torch.Tensor]


class Reading(ABC):
    """Rows (see `samples`) as batches of a model, and what it makes of them."""

    packs: ClassVar[bool]  # whether one sequence can teach every item of a history

    @abstractmethod
    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows as one batch, padded at the end; its `labels` hold `IGNORED` where there is nothing to learn."""

    @abstractmethod
    def logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The model's logits, one vector for each of the batch's `labels`."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy of the labels of a `collate`d batch, in nats a token."""
        logits = self.logits(model, batch)
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), batch["labels"].flatten(), ignore_index=IGNORED
        )

    def validation_loss(self, rows: Sequence[Row], batch: int) -> Callable[[torch.nn.Module], dict[str, float]]:
        """A function that measures a model's mean loss a token on `rows`, in batches of `batch`."""
        ordered = sorted(rows, key=lambda row: len(row[0]))
        batches = [self.collate(ordered[first : first + batch]) for first in range(0, len(ordered), batch)]

        def measure(model: torch.nn.Module) -> dict[str, float]:
            device = next(model.parameters()).device
            total, count = 0.0, 0
            for tensors in batches:
                here = int((tensors["labels"] != IGNORED).sum())
                on_device = {name: tensor.to(device) for name, tensor in tensors.items()}
                total += float(self.loss(model, on_device)) * here
                count += here
            return {"validation_loss": total / count}

        return measure


@final
class AsOneSequence(Reading):
    """A decoder's: what follows stands behind the prompt, and under causal attention nobody sees the padding."""

    packs = True

    def collate(self, rows: Sequence[Row]) -> Batch:
        """input_ids [B, T]; columns [C]: the positions of which a label is known in some row; labels [B, C]."""
        ids = padded([ids for ids, _ in rows], 0)[:, :-1]
        labels = padded([labels for _, labels in rows], IGNORED)[:, 1:]
        columns = np.flatnonzero((labels != IGNORED).any(axis=0))
        return as_tensors(input_ids=ids, columns=columns, labels=labels[:, columns])

    def logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        logits: torch.Tensor = model(
            input_ids=batch["input_ids"], logits_to_keep=batch["columns"], use_cache=False
        ).logits
        return logits


@final
@dataclass(frozen=True)
class ThroughEncoder(Reading):
    """An encoder-decoder's: the encoder reads the prompt, the decoder begins with a token of its own."""

    start: int  # that token's id
    packs = False  # an encoder sees the whole of its prompt: each item is an answer to a prompt of its own

    def collate(self, rows: Sequence[Row]) -> Batch:
        """input_ids, attention_mask [B, P] of the prompts; decoder_input_ids, labels [B, L] of the answers."""
        prompts = [ids[labels == IGNORED] for ids, labels in rows]
        labels = padded([ids[labels != IGNORED] for ids, labels in rows], IGNORED)
        begun = np.concatenate((np.full((len(rows), 1), self.start), labels[:, :-1]), axis=1)
        inside = np.arange(max(map(len, prompts))) < np.array([len(prompt) for prompt in prompts])[:, None]
        return as_tensors(
            input_ids=padded(prompts, 0), attention_mask=inside.astype(np.int64),
            decoder_input_ids=np.where(begun == IGNORED, 0, begun), labels=labels,
        )  # fmt: skip

    def logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits: torch.Tensor = model(**inputs, use_cache=False).logits
        return logits


def reading_of(config: PretrainedConfig) -> Reading:
    """How a model of this configuration takes its prompts."""
    return ThroughEncoder(int(config.decoder_start_token_id)) if config.is_encoder_decoder else AsOneSequence()


def padded(rows: Sequence[Int64], filler: int) -> Int64:
    """Rows of unequal length as one array [B, T], `filler` behind the shorter ones."""
    table = np.full((len(rows), max(map(len, rows))), filler)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return table


def as_tensors(**arrays: Int64) -> Batch:
    """Arrays as tensors that own what they hold."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
