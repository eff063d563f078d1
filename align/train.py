"""Training a decoder from scratch on item histories: the next item's tokens, after `<s>` and the items before it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import LlamaForCausalLM

from ..catalog.errors import SpecRecError
from ..catalog.files import Frozen
from ..catalog.items import Catalog
from ..catalog.trie import PAD as NO_TOKEN
from .decoder import BOS, PAD, ModelSize, build_decoder, build_tokenizer, save_checkpoint

Int64 = NDArray[np.int64]

IGNORED = -100  # the label of a position that has no part in the loss
BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left, {postfix}"
BUCKET = 16  # batches that are sorted by length together, so that little of a batch is padding


class TrainingBudget(Frozen, frozen=True, kw_only=True):
    """How long and how to train. With `seconds` unset, the same seed gives the same weights on the same machine."""

    steps: int
    seconds: float | None = None  # stop here even if steps are left; the learning rate falls in time
    batch: int = 16  # histories a step; small, because on few cores many steps teach more than large ones
    learning_rate: float = 5e-3  # at its highest, after the warm-up
    warmup: float = 0.1  # share of the budget
    weight_decay: float = 0.05
    checks: int = 5  # looks at the validation loss, evenly over the budget
    patience: int = 2  # checks without a better loss before training stops


@dataclass(frozen=True)
class TrainingReport:
    """What came of it; losses are nats a token."""

    parameters: int
    steps: int
    seconds: float
    first_loss: float
    last_loss: float
    validation_loss: float | None


def train_decoder(
    histories: Sequence[Sequence[int]],
    catalog: Catalog,
    size: ModelSize,
    output: Path,
    *,
    budget: TrainingBudget,
    validation: Sequence[Sequence[int]] = (),
    history_length: int = 20,
    seed: int = 0,
    replace: bool = False,
    progress: str | None = None,
) -> TrainingReport:
    """Train on histories of catalog positions and write a Hugging Face checkpoint to `output`.

    A sequence is `<s>` and at most `history_length + 1` items in a row, what a prompt and its answer
    hold; every item of it is learned from those before. `progress` names the bar (shown on a terminal),
    None shows none. Keeps the weights of the best validation loss where `validation` is given. Raises `SpecRecError`
    where there is nothing to learn from, a history does not fit the context, or `output` exists.
    """
    if output.exists() and not replace:  # before the work, not after it
        raise SpecRecError(f"{output} exists already. Choose another name or pass replace=True.")
    tokenizer = build_tokenizer(catalog.tokens)
    table = catalog.token_ids(tokenizer.get_vocab())
    if (table == NO_TOKEN).any():
        raise SpecRecError("This trainer takes identifiers of one length only; the catalog has several lengths.")
    longest = 1 + (history_length + 1) * table.shape[1]
    if longest > size.context:
        raise SpecRecError(
            f"{history_length} items and the answer are {longest} tokens; the context is {size.context}."
        )
    train = Sequences(histories, table, history_length + 1)
    held_out = Sequences(validation, table, history_length + 1) if validation else None
    model = build_decoder(size, len(tokenizer), seed=seed)
    loop = TrainingLoop(model, budget, np.random.default_rng([seed, 2]))
    report = loop.run(train, held_out, progress)
    save_checkpoint(model, tokenizer, output, replace=replace)
    return report


class Sequences:
    """Histories as one flat array of items; batches are windows of at most `window` items, as token ids."""

    def __init__(self, histories: Sequence[Sequence[int]], table: Int64, window: int) -> None:
        lengths = np.array([len(history) for history in histories], np.int64)
        if not len(lengths) or not lengths.all():
            raise SpecRecError(
                f"Training needs histories with items; got {len(lengths)}, empty: {(lengths == 0).sum()}."
            )
        self._items = np.concatenate([np.asarray(history, np.int64) for history in histories])
        self._starts = np.cumsum(lengths) - lengths
        self._lengths = lengths
        self._table = table
        self._window = window

    def __len__(self) -> int:
        return len(self._lengths)

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[torch.Tensor]:
        """One pass in random order, windows of long histories at random. Yields token ids [B, T], `PAD` at the end."""
        order = rng.permutation(len(self))
        for first in range(0, len(order), size * BUCKET):
            bucket = order[first : first + size * BUCKET]
            bucket = bucket[np.argsort(np.minimum(self._lengths[bucket], self._window), kind="stable")]
            groups = np.split(bucket, range(size, len(bucket), size))
            for group in rng.permutation(len(groups)).tolist():
                yield self._tokens(groups[group], rng)

    def _tokens(self, rows: Int64, rng: np.random.Generator) -> torch.Tensor:
        kept = np.minimum(self._lengths[rows], self._window)
        start = self._starts[rows] + rng.integers(self._lengths[rows] - kept + 1)
        place = np.arange(kept.max())
        inside = place < kept[:, None]  # [B, items]
        items = self._items[np.where(inside, start[:, None] + place, 0)]
        tokens = np.where(inside[..., None], self._table[items], PAD).reshape(len(rows), -1)
        return torch.from_numpy(np.pad(tokens, ((0, 0), (1, 0)), constant_values=BOS))


class TrainingLoop:
    """The model, its optimizer and its clock."""

    def __init__(self, model: LlamaForCausalLM, budget: TrainingBudget, rng: np.random.Generator) -> None:
        self._model = model
        self._budget = budget
        self._rng = rng
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=budget.learning_rate, betas=(0.9, 0.98), weight_decay=budget.weight_decay, fused=True
        )

    def run(self, train: Sequences, validation: Sequences | None, progress: str | None) -> TrainingReport:
        """Train until the budget is spent or the validation loss stops falling."""
        began = time.perf_counter()
        watch = BestWeights(self._model, self._budget.patience)
        losses: list[float] = []
        done, checked = 0.0, 0
        with tqdm(total=1.0, desc=progress, disable=None if progress else True, bar_format=BAR) as bar:
            for tokens in self._forever(train):
                losses.append(self._step(tokens, done))
                elapsed = time.perf_counter() - began
                done = max(len(losses) / self._budget.steps, elapsed / (self._budget.seconds or float("inf")))
                bar.update(min(done, 1.0) - bar.n)
                bar.set_postfix_str(f"loss {np.mean(losses[-20:]):.3f}{watch}", refresh=False)
                if validation is not None and done * self._budget.checks >= checked + 1:
                    checked = int(done * self._budget.checks)
                    if watch.hopeless(self.loss(validation)):
                        break
                if done >= 1.0:
                    break
        watch.restore()
        return TrainingReport(
            parameters=self._model.num_parameters(),
            steps=len(losses),
            seconds=time.perf_counter() - began,
            first_loss=losses[0],
            last_loss=float(np.mean(losses[-20:])),
            validation_loss=watch.best,
        )

    @torch.no_grad()
    def loss(self, sequences: Sequences) -> float:
        """Mean loss a token, always over the same windows."""
        self._model.train(False)
        total, count = 0.0, 0
        for tokens in sequences.batches(4 * self._budget.batch, np.random.default_rng(0)):
            here = int((tokens[:, 1:] != PAD).sum())
            total += float(next_token_loss(self._model, tokens)) * here
            count += here
        return total / count

    def _step(self, tokens: torch.Tensor, done: float) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = self._budget.learning_rate * schedule(done, self._budget.warmup)
        self._model.train()
        loss = next_token_loss(self._model, tokens)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        return loss.item()

    def _forever(self, train: Sequences) -> Iterator[torch.Tensor]:
        while True:
            yield from train.batches(self._budget.batch, self._rng)


class BestWeights:
    """Remembers the weights of the lowest validation loss seen."""

    def __init__(self, model: LlamaForCausalLM, patience: int) -> None:
        self._model = model
        self._patience = patience
        self._worse = 0
        self._weights: dict[str, torch.Tensor] = {}
        self.best: float | None = None

    def __str__(self) -> str:
        return "" if self.best is None else f", validation {self.best:.3f}"

    def hopeless(self, loss: float) -> bool:
        """Take note of a loss; true once `patience` losses in a row were no better than the best."""
        if self.best is None or loss < self.best:
            self.best, self._worse = loss, 0
            self._weights = {name: value.clone() for name, value in self._model.state_dict().items()}
        else:
            self._worse += 1
        return self._worse >= self._patience

    def restore(self) -> None:
        """Put the best weights back; without a look at any, leave the last."""
        if self._weights:
            self._model.load_state_dict(self._weights)


def next_token_loss(model: LlamaForCausalLM, tokens: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of every token but the first, padding left out; tokens [B, T], padded at the end.

    No padding mask: under causal attention no real position sees the padding behind it.
    """
    labels = tokens[:, 1:].masked_fill(tokens[:, 1:] == PAD, IGNORED)
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def schedule(done: float, warmup: float) -> float:
    """The learning rate's factor when a share `done` of the budget is spent: a line up, then half a cosine down."""
    if done < warmup:
        return max(done / warmup, 0.01)
    return 0.5 * (1.0 + cos(pi * min((done - warmup) / (1.0 - warmup), 1.0)))
