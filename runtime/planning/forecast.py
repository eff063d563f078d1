"""What one batch will cost under a policy of drafting: the arithmetic of the planner, without an engine.

The model of a round. A request stands at depth s < L and lacks some nodes there. One target call evaluates
these and what is drafted below (at s = 0: the prompt). The request then advances to s + 1, to s + 2 if level
1 of the draft was complete, and so on; where a level was not, it lacks there only what was not drafted.
Nodes that an earlier round drafted in vain are forgotten here, though not in the loop: a forecast errs on
the dear side.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict, Unpack

import numpy as np

from ...catalog.finite import all_finite
from ..types import Bool, Float64, Int64
from .acceptance import Acceptance
from .costs import CallCosts

NEVER = 1e-9  # calls of less probability cost nothing
REACH = 2.0  # calls of more than so many times the tokens that were measured are not trusted


class Plan(NamedTuple):
    """What to evaluate ahead of need in a round."""

    widths: tuple[int, ...] = ()  # nodes that the draft proposes at each level
    enumerate: bool = False  # instead: all children of the frontier


Policy = tuple[Plan, ...]  # for a request that stands at depth 0, 1, ..., L - 1
NOTHING, ENUMERATE = Plan(), Plan(enumerate=True)


class Situation(TypedDict):
    """What is to be planned for."""

    batch: int  # requests in one call
    prompt: int  # tokens of the longest
    width: int  # K
    shared_prefix: int  # tokens of the prompt that both engines have cached already
    target: CallCosts
    draft: CallCosts | None
    acceptance: Acceptance


class Outcome(NamedTuple):
    """What C plans do to a request that stands at one depth."""

    lands: Float64  # [L, C] chance of standing at each depth afterwards; what is lacking to 1 is done
    missing: Float64  # [L, C] nodes lacking there
    nodes: Float64  # [C] nodes that the target evaluates ahead of need
    asked: Float64  # [L, C] nodes that the draft evaluates in each call (but for the prompt)
    drafts: Bool  # [L, C] whether it makes that call


class Forecast:
    """The expected course of one batch, for many policies at once."""

    def __init__(self, **situation: Unpack[Situation]) -> None:
        self._batch, self._width = situation["batch"], situation["width"]
        self._shared, self._prompt = situation["shared_prefix"], situation["prompt"]
        self._target, self._draft = situation["target"], situation["draft"]
        if min(self._batch, self._width) < 1 or not 0 <= self._shared < self._prompt:
            raise ValueError(
                f"got batch {self._batch}, width {self._width}, {self._prompt} tokens of which {self._shared} are "
                "shared; expected 1 or more, and a prompt longer than what is shared"
            )
        self.length = situation["acceptance"].length
        self._estimates = situation["acceptance"].estimates(self._width)
        pairs = [(0, 0), *((s, d) for d in range(self.length) for s in range(d))]
        self._from, self._to = np.array(pairs).T  # states: at a depth, come from another; (0, 0) is the beginning
        self._first = np.searchsorted(self._to, np.arange(self.length))  # first state of every depth
        self._outcomes: dict[tuple[int, tuple[Plan, ...]], Outcome] = {}

    def can_enumerate(self, s: int) -> bool:
        """Whether all children of the frontier at depth s need a call near those that were measured."""
        new = self._estimates.children[s] + (0 if s else self._prompt - self._shared)
        return s < self.length - 1 and bool(new <= REACH * self._target.most_tokens)

    def outcome(self, s: int, plans: tuple[Plan, ...]) -> Outcome:
        """What plans do at depth s. Raises `ValueError` where one drafts and there is no draft."""
        if (s, plans) not in self._outcomes:
            self._outcomes[s, plans] = self._outcome(s, plans)
        return self._outcomes[s, plans]

    def _outcome(self, s: int, plans: tuple[Plan, ...]) -> Outcome:
        known, length, count = self._estimates, self.length, len(plans)
        levels = length - 1 - s
        wanted = np.array([(*plan.widths, *(0,) * levels)[:levels] for plan in plans]).reshape(count, levels).T
        drafts = np.logical_and.accumulate(wanted > 0, axis=0)
        if self._draft is None and drafts.any():
            raise ValueError("got a plan that drafts, but no costs of a draft; expected none, or a draft")
        every = np.array([plan.enumerate for plan in plans]) & (levels > 0)
        width = np.where(drafts, wanted, 0).astype(np.float64)
        complete, share = np.ones((2, levels, count))
        for j in range(levels):
            complete[j], share[j] = known.p_complete(s, j + 1, width[j]), known.share_found(s, j + 1, width[j])
        complete[:1, every] = share[:1, every] = 1.0
        most = known.census.open[s + 1 :].astype(np.float64)
        most[:1] = known.children[s]
        drafted = np.minimum(width, most[:, None])
        reached = np.concatenate([np.ones((1, count)), np.cumprod(complete, axis=0)])[:levels]
        lands, missing, asked = np.zeros((3, length, count))
        calls = np.zeros((length, count), bool)
        lands[s + 1 :] = reached * (1 - complete)
        lost = known.needed[s + 1 :, None] * (1 - share) / np.maximum(1 - complete, NEVER)
        missing[s + 1 :] = np.clip(lost, 1, self._width)  # given that the level is not complete
        asked[1:levels] = drafted[:-1]
        asked[0] = known.needed[s] if s else 0.0
        calls[:levels] = drafts
        return Outcome(lands, missing, drafted.sum(axis=0) + every * known.children[s], asked, calls)

    def drafted(self, policy: Policy) -> float:
        """Nodes that are expected to be drafted for one request (evaluating all children is nobody's draft)."""
        standing, nodes = np.zeros(self.length), 0.0
        standing[0] = 1.0
        for s, plan in enumerate(policy):
            outcome = self.outcome(s, (plan,))
            nodes += 0.0 if plan.enumerate else float(standing[s] * outcome.nodes[0])
            standing += standing[s] * outcome.lands[:, 0]
        return nodes

    def milliseconds(self, outcomes: Sequence[Outcome]) -> Float64:
        """[C] expected time of the batch; an outcome for every depth, of C plans or of one.

        The requests are taken as independent of each other. A call costs what its neediest request needs.
        """
        count, length = max(len(outcome.nodes) for outcome in outcomes), self.length
        lands, missing, asked = np.zeros((3, length, length, count))
        nodes, drafts = np.zeros((length, count)), np.zeros((length, length, count), bool)
        for s, outcome in enumerate(outcomes):
            lands[s], missing[s], nodes[s], asked[s], drafts[s] = outcome
        new = missing[self._from, self._to] + nodes[self._to]
        new[0] = self._prompt - self._shared + nodes[0]
        lands = lands[self._from, self._to]
        mass = np.zeros((len(self._to), count))  # by state
        mass[0] = 1.0
        past = np.full(mass.shape, float(self._shared))
        course = []
        for _ in range(length):
            here = np.add.reduceat(mass, self._first)  # [L, C] by depth
            before, after = (
                np.add.reduceat(mass * slots, self._first) / np.maximum(here, NEVER) for slots in (past, past + new)
            )
            course.append((mass, past, here, before))
            mass, past = here[self._from] * lands, after[self._from]
        masses, pasts, standing, cached = (np.stack(part) for part in zip(*course, strict=True))
        active = standing.sum(axis=1, keepdims=True)  # [rounds, 1, C]
        rows = self._batch * active / np.maximum(1 - (1 - np.minimum(active, 1)) ** self._batch, NEVER)
        prompt = np.zeros((length, 1, count))
        prompt[0] = self._prompt - self._shared
        total = self._cost(self._target, masses, rows, pasts, new, prompt)
        if self._draft is not None and drafts.any():
            drafts, asked = drafts.swapaxes(0, 1), asked.swapaxes(0, 1)  # by call, depth
            total = total + self._drafting(self._draft, standing, rows, cached, asked, drafts)
        all_finite(total, "The expected time of a batch", "Build and tune the engine again: its times are damaged.")
        return total

    def _drafting(
        self, costs: CallCosts, standing: Float64, rows: Float64, cached: Float64, asked: Float64, drafts: Bool
    ) -> Float64:
        """[C] time of the draft; standing and cached by [round, depth], asked and drafts by [call, depth].

        The draft's cache is taken to be as long as the target's. Its first call of all brings the prompts.
        Every active request has a row in each call, whether it has tokens or not.
        """
        mass = standing[:, None] * drafts
        begins = mass[:, :1].sum(axis=2, keepdims=True)  # [rounds, 1, 1, C] chance that a request's draft is called
        # That nobody's was before. Mostly 1 or 0: where nothing was drafted yet, requests have gone the same way.
        first = np.maximum(1 - (np.cumsum(begins, axis=0) - begins), 0) ** self._batch
        first = np.concatenate([first, np.zeros_like(first).repeat(self.length - 1, axis=1)], axis=1)  # by call
        prompt = first * (self._prompt - self._shared)
        past = first * self._shared + (1 - first) * np.maximum(cached[:, None], self._prompt)
        return self._cost(costs, mass, rows[:, None], past, asked + prompt, prompt, order=asked)

    def _cost(
        self,
        costs: CallCosts,
        mass: Float64,
        rows: Float64,
        past: Float64,
        new: Float64,
        prompt: Float64,
        order: Float64 | None = None,
    ) -> Float64:
        """[C] time of calls in which a request has part with the chances `mass` [..., states, C], having `new` tokens.

        order: what ranks the states by their tokens (default: new), [states, C].
        """
        weight = _neediest(mass, new if order is None else order, self._batch)
        made = weight > NEVER
        parts = (np.broadcast_to(part, mass.shape)[made] for part in (rows, past, new, prompt))
        spent = np.zeros(mass.shape)
        spent[made] = weight[made] * costs.of_calls(*parts)
        total: Float64 = spent.reshape(-1, mass.shape[-1]).sum(axis=0)
        return total


def _neediest(mass: Float64, tokens: Float64, batch: int) -> Float64:
    """Chance that the request with the most tokens, of `batch` independent ones, is in each state.

    mass [..., states, C]: of one request, the rest to 1 being that it has no part; tokens [..., states, C].
    """
    if batch == 1:
        return mass
    order: Int64 = np.broadcast_to(np.argsort(tokens, axis=-2, kind="stable"), mass.shape)
    upto = np.cumsum(np.take_along_axis(mass, order, axis=-2), axis=-2)
    none = np.maximum(1 - upto[..., -1:, :], 0)
    most = np.diff(np.concatenate([none, none + upto], axis=-2) ** batch, axis=-2)
    weight = np.empty(mass.shape)
    np.put_along_axis(weight, order, most, axis=-2)
    return weight


def expected_milliseconds(policy: Policy, **situation: Unpack[Situation]) -> float:
    """The expected time to finish one batch under a policy; exact for one request, if the model of a round is.

    Raises `ValueError` for a policy that has not a plan for every depth, or drafts without a draft.
    """
    forecast = Forecast(**situation)
    if len(policy) != forecast.length:
        raise ValueError(f"got plans for {len(policy)} depths, expected {forecast.length}")
    return float(forecast.milliseconds([forecast.outcome(s, (plan,)) for s, plan in enumerate(policy)])[0])
