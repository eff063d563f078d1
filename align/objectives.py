"""What a draft is taught: the objectives, each a function of a batch of trees and the draft's log-probabilities.

A row is a node of a tree; `p` are the target's and `q` the draft's log-probabilities of its children. The
papers' objectives are means over (sequence, position): a node stands for all sequences that pass
through it, so it weighs as many as `TreeBatch.beams` (or `truth`) says, and is computed once.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, get_args

import torch

from ..catalog import checks
from ..catalog.errors import OptionError
from .teaching.batch import TreeBatch, path_scores
from .teaching.segments import log_shares, ranks, total

Name = Literal["atspeed-s", "atspeed-r", "seq-kd", "word-kd", "tvd-kd", "sft", "path-kd"]
Kind = Literal["beams", "truth"]


@dataclass(frozen=True)
class Objective(ABC):
    """One objective, mixed with the data's own loss: (1 - alpha) cross-entropy + alpha objective.

    Raises `OptionError` for settings out of range.
    """

    alpha: float = 0.7  # AtSpeed's
    judged: ClassVar[bool] = True  # whether the target's judgement of a tree counts, and not the tree alone
    reaches_leaves: ClassVar[bool] = True  # whether nodes matter whose children are all leaves: no draft needs them

    def __post_init__(self) -> None:
        checks.check_types(self)
        if not 0 <= self.alpha <= 1:
            raise OptionError(f"got an alpha of {self.alpha:g}; expected a share of the loss, 0 to 1.")

    def __call__(self, batch: TreeBatch, q: torch.Tensor) -> torch.Tensor:
        """The loss of a batch, nats a row; q [c]: the draft's log-probability of every child."""
        aligned = self.aligned(batch, q) if self.alpha > 0 else q.new_zeros(())
        data = data_loss(batch, q) if self.alpha < 1 else q.new_zeros(())
        return self.alpha * aligned + (1 - self.alpha) * data

    @abstractmethod
    def aligned(self, batch: TreeBatch, q: torch.Tensor) -> torch.Tensor:
        """The objective itself."""


def data_loss(batch: TreeBatch, q: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the items that really came next, nats a token; nothing where none is known."""
    return -(q * batch.truth).sum() / batch.truth.sum().clamp(min=1)


@dataclass(frozen=True)
class Sft(Objective):
    """Plain supervised fine-tuning: the data's loss alone."""

    alpha: float = 0.0
    judged: ClassVar[bool] = False

    def aligned(self, batch: TreeBatch, q: torch.Tensor) -> torch.Tensor:
        return data_loss(batch, q)


@dataclass(frozen=True)
class SeqKd(Objective):
    """Sequence-level distillation (Kim and Rush 2016): cross-entropy of the target's K beams."""

    judged: ClassVar[bool] = False

    def aligned(self, batch: TreeBatch, q: torch.Tensor) -> torch.Tensor:
        return -(q * batch.beams).sum() / batch.beams.sum().clamp(min=1)


@dataclass(frozen=True)
class WordKd(Objective):
    """Word-level distillation: forward KL on the sequence that really came next (AtSpeed's baseline WordKD)."""

    def aligned(self, batch: TreeBatch, q: torch.Tensor) -> torch.Tensor:
        log_p, log_q = allowed(batch, batch.teacher), allowed(batch, q)
        return by_row(batch, log_p.exp() * (log_p - log_q), "truth")


@dataclass(frozen=True)
class TvdKd(Objective):
    """Total variation on the sequence that really came next (AtSpeed's baseline TVDKD)."""

    def aligned(self, batch: TreeBatch, q: torch.Tensor) -> torch.Tensor:
        return by_row(batch, 0.5 * (allowed(batch, batch.teacher).exp() - allowed(batch, q).exp()).abs(), "truth")


@dataclass(frozen=True)
class AtSpeedR(Objective):
    """AtSpeed-R (arXiv 2410.05165), for relaxed verification: total variation on the target's K beams."""

    temperature: float = 1.0  # divides both models' logits

    def __post_init__(self) -> None:
        super().__post_init__()
        check_temperature(self.temperature)

    def aligned(self, batch: TreeBatch, q: torch.Tensor) -> torch.Tensor:
        p, q = (allowed(batch, x / self.temperature).exp() for x in (batch.teacher, q))
        return by_row(batch, 0.5 * (p - q).abs(), "beams")


@dataclass(frozen=True)
class AtSpeedS(Objective):
    """AtSpeed-S (arXiv 2410.05165), for strict verification: on the target's K beams, reverse KL over the draft's
    top K tokens of a row, and a density term: the entropy there, weighted by the target's share of the K-th.

    As in the published code, except that a row's tokens are those that the item trie allows (there: all of
    its position), and the restricted distributions are renormalised instead of passed through another
    softmax with a temperature of 0.001; `softened` is that softmax.
    """

    top_k: int = 20
    softened: float | None = None  # temperature of a softmax over the *probabilities* (published: 0.001)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.softened is not None:
            check_temperature(self.softened)
        check_top_k(self.top_k)

    def aligned(self, batch: TreeBatch, q: torch.Tensor) -> torch.Tensor:
        p, q = allowed(batch, batch.teacher), allowed(batch, q)
        rank = ranks(q.detach(), batch.parent)
        chosen = torch.nonzero(rank < self.top_k)[:, 0]
        parent, rows = batch.parent[chosen], len(batch.owner)
        if self.softened is not None:
            p, q = p.exp() / self.softened, q.exp() / self.softened
        log_p, log_q = log_shares(p[chosen], parent, rows), log_shares(q[chosen], parent, rows)
        size = total(torch.ones_like(log_q), parent, rows)
        last = rank[chosen] == (size[parent] - 1)
        boundary = total(log_p.exp() * last, parent, rows)[parent]
        each = log_q.exp() * (log_q - log_p) - boundary * log_q.exp() * log_q
        whole = q.new_zeros(len(batch.parent)).index_add(0, chosen, each)
        return by_row(batch, whole, "beams")


@dataclass(frozen=True)
class PathKd(Objective):
    """SpecBeam's own, for strict verification: what ranks paths, where the target's K-th best lies.

    Two terms over the trie's own children. A row's: forward KL of the children and of all the rest of the
    vocabulary together, because a path's score is made of unnormalised log-probabilities. A level's: a
    robust distance (Huber) between the summed log-probabilities that both models give the target's best
    `2 K` nodes of a depth, among which the K needed and those that push them out are; a node no draft is
    asked for (a leaf) has no part in it.
    """

    alpha: float = 1.0
    top_k: int = 20
    row_weight: float = 1.0
    reaches_leaves: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_top_k(self.top_k)
        if not 0 <= self.row_weight < float("inf"):
            raise OptionError(f"got a row weight of {self.row_weight:g}; expected a number, at least 0.")

    def aligned(self, batch: TreeBatch, q: torch.Tensor) -> torch.Tensor:
        row = by_row(batch, batch.teacher.exp() * (batch.teacher - q), "beams") + self._rest(batch, q)
        return self.row_weight * row + self._levels(batch, q)

    def _rest(self, batch: TreeBatch, q: torch.Tensor) -> torch.Tensor:
        """The part of the rows' KL that lies outside the trie."""
        rows = len(batch.owner)
        p_rest, q_rest = ((1 - total(x.exp(), batch.parent, rows)).clamp(min=1e-6) for x in (batch.teacher, q))
        weight = total(batch.beams, batch.parent, rows)
        return (weight * p_rest * (p_rest.log() - q_rest.log())).sum() / weight.sum().clamp(min=1)

    def _levels(self, batch: TreeBatch, q: torch.Tensor) -> torch.Tensor:
        chosen = torch.nonzero(batch.needed)[:, 0]
        theirs, ours = path_scores(batch, batch.teacher)[chosen], path_scores(batch, q)[chosen]
        node = batch.parent[chosen]
        levels = int(batch.depth.max()) + 1
        near = ranks(theirs, batch.owner[node] * levels + batch.depth[node]) < 2 * self.top_k
        distance = torch.nn.functional.smooth_l1_loss(ours, theirs, reduction="none")
        return (distance * near).sum() / near.sum().clamp(min=1)


OBJECTIVES: dict[Name, type[Objective]] = {
    "atspeed-s": AtSpeedS, "atspeed-r": AtSpeedR, "seq-kd": SeqKd, "word-kd": WordKd, "tvd-kd": TvdKd, "sft": Sft,
    "path-kd": PathKd,
}  # fmt: skip
assert set(OBJECTIVES) == set(get_args(Name))


def find_objective(name: Name, **settings: float | None) -> Objective:
    """An objective with settings of its own in place of the defaults (None: the default).

    Raises `OptionError` for an unknown name and for settings that it does not have.
    """
    checks.choice(name, "objective", OBJECTIVES)
    known = {field.name for field in fields(OBJECTIVES[name])}
    given = {key: value for key, value in settings.items() if value is not None}
    strange = sorted(given.keys() - known - {"top_k"})  # K is the beams' too
    if strange:
        raise OptionError(f"{name} has no {' and no '.join(strange)}. Leave it out, or choose another objective.")
    return OBJECTIVES[name](**{key: value for key, value in given.items() if key in known})


def allowed(batch: TreeBatch, logprobs: torch.Tensor) -> torch.Tensor:
    """[c] log-probabilities renormalised over the children that the trie allows."""
    return log_shares(logprobs, batch.parent, len(batch.owner))


def by_row(batch: TreeBatch, each: torch.Tensor, kind: Kind) -> torch.Tensor:
    """The mean over sequences and positions of what children contribute [c] to their rows."""
    passing = batch.beams if kind == "beams" else batch.truth.to(each.dtype)
    weight = total(passing, batch.parent, len(batch.owner))
    return (each * weight[batch.parent]).sum() / weight.sum().clamp(min=1)


def check_temperature(value: float) -> None:
    """Raise `OptionError` unless it is a finite number above 0."""
    if not 0 < value < float("inf"):
        raise OptionError(f"got a temperature of {value:g}; expected a number above 0.")


def check_top_k(value: int) -> None:
    """Raise `OptionError` unless there is something to rank."""
    if value < 1:
        raise OptionError(f"got a top K of {value}; expected at least 1.")
