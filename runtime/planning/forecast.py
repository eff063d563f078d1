"""What one batch will cost under a policy of drafting, and the policy that costs least: the planner's arithmetic.

The model of a round. A request stands at depth s < L. One target call evaluates the frontier and what is drafted
below it (at s = 0 the prompt as well). The request then advances to s + 1, to s + 2 if level 1 of the draft was
complete, and so on; depths that need no scores are passed over. What is left to do depends on the depth alone, and on
whether the draft has read the prompt, so it is found from the leaves upwards, one depth after the other: time and
memory grow with the levels and no faster. Nodes that an earlier round drafted in vain are forgotten here, though not
in the loop: a forecast errs on the dear side.

A batch shares its calls: what a call takes whoever has part in it is paid for as long as anybody needs rounds, and
the slowest is taken to be as far above the mean as the largest of so many normal numbers.
"""

from statistics import NormalDist
from typing import NamedTuple, Unpack

import numpy as np

from ...catalog.finite import all_finite
from ..types import Bool, Float64, Int64
from .costs import BatchCosts, Pace
from .draft_shapes import FARTHEST, common_shapes, own_shapes
from .plans import ENUMERATE, NOTHING, Outlook, Paces, Plan, Policy, Situation, Weighed

NEVER = 1e-9  # a chance below this is none
REACH = 2.0  # calls of more than so many times the tokens that were measured are not trusted
WORTH = 0.01  # a plan must save this share of the time to be preferred to a simpler one
CALL, ROW, ROUNDS, SQUARES, NODES = range(5)  # what is known of the rest of a request's way; squares: of the rounds


class _Drafts(NamedTuple):
    """F shapes of drafts from every depth, each of its parts of 1 to M levels a plan: [L, F, M] if not said."""

    shapes: Int64  # [L or 1, F, M] nodes at each level
    lands: Float64  # chance of standing at the level afterwards: that it is the first incomplete one
    through: Float64  # chance that all levels up to it are complete
    spared: Float64  # ms that the next call takes less, as some nodes of the incomplete level were drafted
    nodes: Float64  # drafted up to it
    now: Float64  # [2, L, F, M] ms of the round, but for the draft's first call: at all, and for each request
    first: Float64  # [2, 2, L] ms of that call, where the draft has read the prompt, and where it has not
    possible: Bool  # that there is such a depth, and that calls of about this size were measured

    def plan(self, s: int, number: int) -> Plan:
        shape, levels = divmod(number, self.shapes.shape[2])
        return Plan(tuple(self.shapes[s if len(self.shapes) > 1 else 0, shape, : levels + 1].tolist()))


class _Kind(NamedTuple):
    """One plan at one depth: what the batch takes from there on, and what is left then and now for a request."""

    total: float
    values: Float64  # [5]
    plan: Plan
    dose: float = 0.0


class _Rest:
    """What is left to do from every depth on."""

    def __init__(self, length: int) -> None:
        size = (5, length + FARTHEST + 2)
        self.standing = np.zeros(size)  # of a request that stands there
        self.arriving = np.zeros(size)  # of one that comes there, and passes on where it needs no scores
        self.kinds: list[list[_Kind]] = [[] for _ in range(length)]  # what was weighed
        self.chosen: list[_Kind] = [_Kind(0.0, np.zeros(5), NOTHING)] * length

    def settle(self, s: int, idle: float, kinds: list[_Kind], chosen: _Kind) -> None:
        self.standing[:, s] = chosen.values
        self.arriving[:, s] = (1 - idle) * chosen.values + idle * self.arriving[:, s + 1]
        self.kinds[s], self.chosen[s] = kinds, chosen


class Forecast:
    """The course of one batch."""

    def __init__(self, **situation: Unpack[Situation]) -> None:
        self._batch, self._width = situation["batch"], situation["width"]
        shared, prompt = situation["shared_prefix"], situation["prompt"]
        if min(self._batch, self._width) < 1 or not 0 <= shared < prompt:
            raise ValueError(
                f"got batch {self._batch}, width {self._width}, {prompt} tokens of which {shared} are "
                "shared; expected 1 or more, and a prompt longer than what is shared"
            )
        known, paces = situation["acceptance"].estimates(self._width), situation.get("paces", Paces())
        self._known = known.with_perfect_drafts() if situation.get("perfect", False) else known
        self.length = len(known.needed)
        self._depths = np.arange(self.length)
        self._need = np.array([0.0, *known.needed[1:]])  # [L] nodes of the frontier, the prompt's not counted
        self._fresh = np.where(self._depths, 0.0, prompt - shared)  # [L] tokens of the prompt
        past = np.array([shared, *(prompt + np.cumsum(self._need))[:-1]], np.float64)  # [L]
        self._target = BatchCosts(situation["target"], self._batch, past, Pace(paces.target))
        draft = situation["draft"]
        pace = Pace(paces.draft, paces.host)
        self._draft = None if draft is None else BatchCosts(draft, self._batch, past, pace)
        tokens = self._need + self._fresh
        call, row = self._target(self._depths, np.stack([tokens, tokens + known.children]), self._fresh)
        one = np.ones_like(call)
        # [2, L, 5] what a round adds in which nothing, or all children, are evaluated ahead
        self._simple = np.stack([call, row, one, one, 0 * one], axis=2)
        self._slowest = NormalDist().inv_cdf((self._batch - 0.375) / (self._batch + 0.25))  # Blom's approximation

    def can_enumerate(self, s: int) -> bool:
        """Whether all children of the frontier at depth s need a call near those that were measured."""
        new = self._known.children[s] + self._need[s] + self._fresh[s]
        return s < self.length - 1 and bool(new <= REACH * self._target.most_tokens)

    def best(self) -> tuple[Policy, Outlook]:
        """The policy that should finish the batch soonest, and what it is expected to bring.

        A simpler plan is kept unless another saves the share `WORTH` of what is left.
        """
        return self._best(forced=False)

    def best_simple(self) -> tuple[Policy, Outlook]:
        """As `best`, without drafts."""
        rest, _ = self._walked(None, None)
        return tuple(kind.plan for kind in rest.chosen), self._outlook(rest, 0.0)

    def best_draft(self) -> tuple[Policy, Outlook] | None:
        """As `best`, but beginning with a draft whether that pays or not; None where no draft can be."""
        found = self._best(forced=True)
        return found if found[0][0].widths else None

    def _best(self, *, forced: bool) -> tuple[Policy, Outlook]:
        if self._draft is None:
            return self.best_simple()
        read, unread = self._walked(self._drafts(common_shapes(self._width)), None, forced=forced)
        rests, policy = list[_Rest](), list[Plan]()
        for s in range(self.length):
            rests.append(read if any(plan.widths for plan in policy) else unread)
            policy.append(rests[-1].chosen[s].plan)
        return tuple(policy), self._outlook(unread, sum(rest.chosen[s].dose for s, rest in enumerate(rests)))

    def of(self, policy: Policy) -> Outlook:
        """What a policy is expected to bring; raises `ValueError` for one that does not fit."""
        policy = self._fitting(policy)
        read, unread = self._walked(None if self._draft is None else self._drafts(own_shapes(policy)), policy)
        first = next((s for s, plan in enumerate(policy) if plan.widths), self.length)
        doses = [(unread if s <= first else read).chosen[s].dose for s in range(self.length)]
        return self._outlook(unread, sum(doses))

    def weighed(self, policy: Policy) -> list[Weighed]:
        """What every kind of plan costs at each depth, those at depths below as they are in the policy."""
        policy, drafts = self._fitting(policy), None
        if self._draft is not None:
            own = own_shapes(policy)
            shapes = np.concatenate([common_shapes(self._width).repeat(len(own), axis=0), own], axis=1)
            drafts = self._drafts(shapes)
        _, unread = self._walked(drafts, policy)
        return [
            Weighed(
                nothing=kinds[0].total,
                enumerate=kinds[1].total if self.can_enumerate(s) else None,
                draft=(kinds[2].total, kinds[2].plan) if len(kinds) > 2 else None,
                chosen=(unread.chosen[s].total, unread.chosen[s].plan),
            )
            for s, kinds in enumerate(unread.kinds)
        ]

    def _fitting(self, policy: Policy) -> Policy:
        """The policy without what no draft can do: levels behind the last depth, or below a level of no width."""
        if len(policy) != self.length:
            raise ValueError(f"got plans for {len(policy)} depths, expected {self.length}")
        found = []
        for s, (widths, every) in enumerate(policy):
            widths = widths[: min(self.length - 1 - s, FARTHEST)]
            widths = widths[: widths.index(0)] if 0 in widths else widths
            if widths and self._draft is None:
                raise ValueError("got a plan that drafts, but no costs of a draft; expected none, or a draft")
            found.append(Plan(widths, every and s < self.length - 1))
        return tuple(found)

    def _drafts(self, shapes: Int64) -> _Drafts:
        """What drafts of some shapes [L or 1, F, M] bring and cost."""
        assert self._draft is not None
        known, shapes = self._known, shapes[..., : max(min(self.length - 1, FARTHEST), 1)]
        level = np.arange(1, shapes.shape[2] + 1)
        depth = self._depths[:, None, None] + level  # [L, 1, M]
        there, depth = depth < self.length, np.minimum(depth, self.length - 1)
        complete, share = known.of_drafts(level, depth, shapes)
        limit = known.census.open[depth].astype(np.float64)
        limit[:, 0, 0] = known.children
        nodes, need = np.minimum(shapes.astype(np.float64), limit), known.needed[depth]
        through: Float64 = np.multiply.accumulate(complete, axis=2)
        lands: Float64 = -np.diff(through, axis=2, prepend=1.0)
        lost = need * (1 - share) / np.maximum(1 - complete, NEVER)
        found = np.maximum(need - np.clip(lost, 1, self._width), 0)
        spared = np.cumsum(lands * found * self._node_ms()[depth], axis=2)
        total, place = np.cumsum(nodes, axis=2), self._depths[:, None, None]
        fresh = self._fresh[:, None, None]
        tokens = total + self._need[:, None, None] + fresh
        now = self._target(place, tokens, fresh)
        # The first level's call is of the frontier; the last level's nodes are evaluated by the target alone.
        now[..., 1:] += np.cumsum(self._draft(place, nodes), axis=3)[..., :-1]
        possible = there & (tokens <= REACH * self._target.most_tokens)
        return _Drafts(shapes, lands, through, spared, total, now, self._first_draft_calls(), possible)

    def _walked(
        self, drafts: _Drafts | None, policy: Policy | None, *, forced: bool = False
    ) -> tuple[_Rest, _Rest]:  # fmt: skip
        """What is left once the draft has read the prompt, and while it has not; from the deepest depth up.

        policy: whose plans are taken; None: the best. forced: at the beginning a draft, if there is any.
        """
        read, unread = _Rest(self.length), _Rest(self.length)
        for s in reversed(range(self.length)):
            draft = None if drafts is None else self._draft_kind(s, drafts, read, policy)
            for own, state in ((read, 0), (unread, 1)):
                kinds = [self._simple_kind(s, 0, own), self._simple_kind(s, 1, own)]
                if drafts is not None and draft is not None:
                    kinds.append(self._with_first_call(draft, drafts.first[:, state, s], s))
                if policy is not None:
                    taken = _planned(policy[s], kinds)
                else:
                    taken = kinds[-1] if forced and not s else self._simplest(s, kinds)
                own.settle(s, float(self._known.idle[s]), kinds, taken)
        return read, unread

    def _simple_kind(self, s: int, ahead: int, rest: _Rest) -> _Kind:
        """Nothing, or all children (ahead: 1)."""
        left, now = rest.arriving[:, min(s + 1 + ahead, self.length)], self._simple[ahead][s]
        values = left + now
        values[SQUARES] += 2 * left[ROUNDS]
        total = self._batch * values[ROW] + now[CALL] + left[CALL] * self._slower(left[ROUNDS], left[SQUARES])
        return _Kind(float(total), values, ENUMERATE if ahead else NOTHING)

    def _draft_kind(self, s: int, drafts: _Drafts, rest: _Rest, policy: Policy | None) -> _Kind | None:
        """The best draft, or the policy's if it has one, but for the draft's first call; None where there is none."""
        if not drafts.possible[s].any():
            return None
        lands, (call, row), most = drafts.lands[s], drafts.now[:, s], drafts.lands.shape[2]
        left = np.cumsum(lands * rest.standing[:NODES, None, s + 1 : s + 1 + most], axis=2)  # [4, F, M]
        left += drafts.through[s] * rest.arriving[:NODES, None, s + 2 : s + 2 + most]
        left[ROW] += row - drafts.spared[s]
        totals = self._batch * left[ROW] + call + left[CALL] * self._slower(left[ROUNDS], left[SQUARES])
        if policy is not None and policy[s].widths:
            number = (len(lands) - 1) * most + len(policy[s].widths) - 1
        else:
            number = int(np.where(drafts.possible[s], totals, np.inf).argmin())
        shape, levels = divmod(number, most)
        rounds = float(left[ROUNDS, shape, levels])
        nodes = lands[shape, : levels + 1] @ rest.standing[NODES, s + 1 : s + 2 + levels]
        nodes += (
            drafts.nodes[s, shape, levels] + drafts.through[s, shape, levels] * rest.arriving[NODES, s + 2 + levels]
        )
        values = np.array([*left[:, shape, levels], nodes])
        values += [call[shape, levels], 0.0, 1.0, 1 + 2 * rounds, 0.0]
        dose = float(call[shape, levels] + self._batch * row[shape, levels])
        return _Kind(float(totals[shape, levels]), values, drafts.plan(s, number), dose)

    def _with_first_call(self, draft: _Kind, first: Float64, s: int) -> _Kind:
        """A draft with its first call's milliseconds [2], and how much more it takes now than nothing does."""
        values, extra = draft.values.copy(), float(first[0] + self._batch * first[1])
        values[:ROUNDS] += first
        nothing = float(self._simple[0, s, CALL] + self._batch * self._simple[0, s, ROW])
        return _Kind(draft.total + extra, values, draft.plan, draft.dose + extra - nothing)

    def _first_draft_calls(self) -> Float64:
        """[2, 2, L] ms of the draft's call that evaluates the frontier; where it has read the prompt, and not."""
        assert self._draft is not None
        prompt = self._fresh[0]
        read = self._draft(self._depths, self._need + self._fresh, self._fresh)
        return np.stack([read, self._draft(0 * self._depths, self._need + prompt, prompt)], axis=1)

    def _slower(self, rounds: Float64, squares: Float64) -> Float64 | float:
        """How many times as many rounds as a request the slowest of the batch needs."""
        if self._batch == 1:
            return 1.0
        rounds = np.maximum(rounds, NEVER)
        spread = np.sqrt(np.maximum(squares - rounds * rounds, 0))
        slower: Float64 = np.minimum(1 + self._slowest * spread / rounds, self.length / rounds)
        return slower

    def _simplest(self, s: int, kinds: list[_Kind]) -> _Kind:
        """The best kind of plan, unless a simpler one costs hardly more."""
        best = kinds[0]
        for kind in kinds[1:]:
            if kind.total < best.total * (1 - WORTH) and (not kind.plan.enumerate or self.can_enumerate(s)):
                best = kind
        return best

    def _outlook(self, rest: _Rest, dose: float) -> Outlook:
        plain = _Rest(self.length)
        for s in reversed(range(self.length)):
            kind = self._simple_kind(s, 0, plain)
            plain.settle(s, float(self._known.idle[s]), [], kind)
        outlook = Outlook(rest.chosen[0].total, plain.chosen[0].total, dose, float(rest.chosen[0].values[NODES]))
        all_finite(
            np.array(outlook), "The expected time of a batch",
            "Build and tune the engine again: its times are damaged.",
        )  # fmt: skip
        return outlook

    def _node_ms(self) -> Float64:
        """[L] what a node of a call adds, for a request."""
        need = np.maximum(self._need, 2.0)
        call, row = self._target(self._depths, np.array([np.ones(self.length), need]))
        each: Float64 = np.diff(call / self._batch + row, axis=0)[0] / (need - 1)
        return each


def _planned(plan: Plan, kinds: list[_Kind]) -> _Kind:
    return kinds[1 if plan.enumerate else 2 if plan.widths else 0]
