"""How much to draft, decided by cost: the measured time of calls and the observed acceptance of drafts."""

from math import log
from threading import Lock
from typing import NamedTuple, Unpack
from weakref import WeakKeyDictionary

import numpy as np

from ..types import Bool, DraftTree, Float64, Frontier, Int64, Verdict
from .acceptance import Acceptance
from .costs import CallCosts
from .estimates import GRID, PRIOR_REQUESTS
from .forecast import ENUMERATE, NOTHING, Forecast, Plan, Policy, Situation, expected_milliseconds
from .policy import Planning

__all__ = ["ENUMERATE", "NOTHING", "Plan", "Planner", "Policy", "choose", "expected_milliseconds", "rationale"]
WORTH = 0.01  # a plan must save this share of the time to be preferred to a simpler one
DOUBT, LEAST_MS = 0.03, 0.1  # and any, to be preferred to none, this share and so much a request: forecasts err
SWEEPS = 2
WELL_KNOWN, SOME = 200, 7  # once so many requests of a K were looked at, one round in so many is
ROUNDING = 1.1  # prompts that differ by less than this factor are planned for as one


def choose(**situation: Unpack[Situation]) -> Policy:
    """The policy that should finish one batch soonest.

    By coordinate descent from drafting nothing at all: the plan for each depth, the deepest first, is the
    best of nothing, all children, and the same width at each of some levels; then each level's width is
    chosen by itself. Where drafting pays only at several depths together (the draft reads the prompt once),
    descent starts from one shape everywhere instead. Nothing is drafted unless that saves the share `DOUBT`
    and `LEAST_MS` a request; what is drafted is no worse, by more than the share `WORTH`, than any one width
    and length everywhere.
    """
    forecast = Forecast(**situation)
    drafting = situation["draft"] is not None and forecast.length > 1
    plain = (NOTHING,) * forecast.length
    options = [plain, _descended(forecast, plain, drafting)]  # the simpler first
    costs = [float(_costs(forecast, option, 0, option[:1])[0]) for option in options]
    if drafting:
        uniform = _uniform(forecast.length - 1)
        everywhere = forecast.milliseconds([forecast.outcome(s, uniform) for s in range(forecast.length)])
        best = int(everywhere.argmin())
        if everywhere[best] < costs[1] * (1 - WORTH):
            shape = (uniform[best],) * forecast.length
            options += [_descended(forecast, shape, drafting), shape]
            costs += [float(_costs(forecast, options[2], 0, options[2][:1])[0]), float(everywhere[best])]
    least = min(costs)
    if costs[0] - max(DOUBT * costs[0], LEAST_MS * situation["batch"]) <= least:
        return plain
    return next(option for option, cost in zip(options, costs, strict=True) if cost * (1 - WORTH) <= least)


def _descended(forecast: Forecast, policy: Policy, drafting: bool) -> Policy:
    """What coordinate descent makes of a policy."""
    for _ in range(SWEEPS):
        before = policy
        for s in reversed(range(forecast.length)):
            policy = (*policy[:s], _chosen(forecast, policy, s, drafting), *policy[s + 1 :])
        if policy == before:
            break
    return policy


def _chosen(forecast: Forecast, policy: Policy, s: int, drafting: bool) -> Plan:
    """The best plan at depth s, those of the other depths given."""
    simple = (NOTHING, ENUMERATE) if forecast.can_enumerate(s) else (NOTHING,)
    plans: tuple[Plan, ...] = (*simple, *(_uniform(forecast.length - 1 - s) if drafting else ()))
    if len(plans) == 1:
        return NOTHING
    plan = plans[_simplest(_costs(forecast, policy, s, plans), len(simple))]
    for level in range(len(plan.widths)):
        plans = tuple(Plan((*plan.widths[:level], width, *plan.widths[level + 1 :])) for width in GRID)
        plan = plans[int(_costs(forecast, policy, s, plans).argmin())]
    return plan


def _simplest(costs: Float64, simple: int) -> int:
    """The best plan, unless a simpler one costs hardly more: the first `simple`, in this order, before all others."""
    best = 0
    for start in range(1, simple + 1):
        rivals = costs[start : start + 1] if start < simple else costs[start:]
        if len(rivals) and rivals.min() < costs[best] * (1 - WORTH):
            best = start + int(rivals.argmin())
    return best


def _costs(forecast: Forecast, policy: Policy, s: int, plans: tuple[Plan, ...]) -> Float64:
    """[C] expected milliseconds with each of the plans at depth s."""
    return forecast.milliseconds(
        [forecast.outcome(d, plans if d == s else (policy[d],)) for d in range(forecast.length)]
    )


def _uniform(levels: int) -> tuple[Plan, ...]:
    """The same width at each of 1 to `levels` levels; short ones first."""
    return tuple(Plan((width,) * length) for length in range(1, levels + 1) for width in GRID)


def rationale(policy: Policy, **situation: Unpack[Situation]) -> str:
    """A policy as a table for people: at every depth, what its plan and the other kinds of plan cost.

    Each row gives the expected milliseconds of the whole batch, the plans at other depths as they are.
    """
    forecast = Forecast(**situation)
    rows: list[tuple[str, ...]] = [("depth", "nothing", "enumerate", "best draft", "chosen")]
    for s in range(forecast.length):
        plans = (NOTHING, ENUMERATE) if forecast.can_enumerate(s) else (NOTHING,)
        drafts = _uniform(forecast.length - 1 - s) if situation["draft"] is not None else ()
        costs = _costs(forecast, policy, s, (*plans, *drafts, policy[s]))
        simple = [f"{cost:.2f}" for cost in costs[: len(plans)]] + ["-"] * (2 - len(plans))
        best = "-"
        if drafts:
            at = int(costs[len(plans) : -1].argmin())
            best = f"{costs[len(plans) + at]:.2f} ({_named(drafts[at])})"
        rows.append((str(s), *simple, best, f"{costs[-1]:.2f} ({_named(policy[s])})"))
    sizes = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(size) for cell, size in zip(row, sizes, strict=True)) for row in rows]
    batch, prompt, width = situation["batch"], situation["prompt"], situation["width"]
    return "\n".join([f"Expected ms: batch {batch}, prompt {prompt}, top {width}", *lines])


def _named(plan: Plan) -> str:
    drafted = "draft " + "+".join(map(str, plan.widths)) if plan.widths else "nothing"
    return "enumerate" if plan.enumerate else drafted


class Expected(NamedTuple):
    """What a policy is expected to bring a request of a batch."""

    drafted: float  # nodes
    enumerated: bool  # all children are evaluated at some depth
    milliseconds: float
    plain: float  # milliseconds without drafting


class Planner(Planning):
    """Plans rounds by cost, and learns from what becomes of them. Safe to share between threads."""

    def __init__(
        self, target: CallCosts, draft: CallCosts | None, acceptance: Acceptance, *, shared_prefix: int = 0,
        tuned: bool = False,
    ) -> None:  # fmt: skip
        """draft: None where no model drafts; shared_prefix: tokens that the engines have cached of every prompt; tuned:
        whether `acceptance` begins with what was counted before."""
        self.target, self.draft, self.acceptance, self.shared_prefix = target, draft, acceptance, shared_prefix
        self.tuned = tuned
        self._policies: dict[tuple[int, int, int], tuple[int, int, Policy]] = {}
        self._enumerated: WeakKeyDictionary[Frontier, Bool] = WeakKeyDictionary()  # of rounds that are under way
        self._turn = 0
        self._lock = Lock()

    @property
    def blind(self) -> bool:
        """Whether it could draft, and nobody has tuned it."""
        return self.draft is not None and not self.tuned

    def policy(self, batch: int, prompt: int, width: int) -> Policy:
        """The policy for batches of about this size, prompts of about this length and lists of this many.

        It is chosen anew when half as many requests again were observed as it was chosen by.
        """
        key = _rounded(batch, 2.0), _rounded(prompt, ROUNDING), width
        version, then, policy = self._policies.get(key, (-1, 0, ()))
        if version == self.acceptance.version:
            return policy
        version = self.acceptance.version
        requests = self.acceptance.requests(width)
        if not policy or not then <= requests < 1.5 * max(then, PRIOR_REQUESTS):
            policy, then = choose(**self._situation(*key)), requests
        self._policies[key] = version, then, policy
        return policy

    def plan(self, frontier: Frontier, prompt: int) -> tuple[Int64, Bool]:
        """See `Planning`: every request by its depth and K."""
        batch, active, k = len(frontier.depth), frontier.active, int(frontier.width.max())
        if (frontier.width == k).all():
            policy = self.policy(batch, prompt, k)
            if not any(map(any, policy)):  # where nothing pays, planning costs nothing
                return np.zeros((batch, 0), np.int64), np.zeros(batch, bool)
            depth = frontier.depth[active]
            plans = [(active & (frontier.depth == s), policy[s]) for s in set(depth.tolist())]
        else:
            plans = self._plans(frontier, prompt)
        widths = np.zeros((batch, max((len(plan.widths) for _, plan in plans), default=0)), np.int64)
        every = np.zeros(batch, bool)
        for mine, plan in plans:
            every |= mine & plan.enumerate
            widths[mine, : len(plan.widths)] = plan.widths
        self._watch(frontier, every, k)
        return widths, every

    def _plans(self, frontier: Frontier, prompt: int) -> list[tuple[Bool, Plan]]:
        """Which requests [B] have which plan."""
        batch, plans = len(frontier.depth), list[tuple[Bool, Plan]]()
        for k in set(frontier.width[frontier.active].tolist()):
            policy = self.policy(batch, prompt, k)
            mine = frontier.active & (frontier.width == k)
            plans += [(mine & (frontier.depth == s), policy[s]) for s in set(frontier.depth[mine].tolist())]
        return plans

    def _watch(self, frontier: Frontier, enumerated: Bool, k: int) -> None:
        """Take note of a round that is to be looked at; that costs as much as planning several, so once much is known
        some are enough."""
        with self._lock:
            self._turn += 1
            if self._turn % SOME == 0 or self.acceptance.requests(k) < WELL_KNOWN:
                self._enumerated[frontier] = enumerated

    def observe(self, before: Frontier, tree: DraftTree, verdict: Verdict) -> None:
        """See `Planning`; rounds of policies that never draft anything are not looked at."""
        if not self._enumerated:
            return
        with self._lock:
            enumerated = self._enumerated.pop(before, None)
            if enumerated is not None:
                self.acceptance.observe(before, tree, verdict, enumerated)

    def rationale(self, batch: int, prompt: int, width: int) -> str:
        """The policy for such batches as a table for people; see `rationale`."""
        situation = self._situation(_rounded(batch, 2.0), _rounded(prompt, ROUNDING), width)
        return rationale(self.policy(batch, prompt, width), **situation)

    def expected(self, batch: int, prompt: int, width: int) -> Expected:
        """What the policy for such batches is expected to bring."""
        batch, prompt = _rounded(batch, 2.0), _rounded(prompt, ROUNDING)
        situation, policy = self._situation(batch, prompt, width), self.policy(batch, prompt, width)
        forecast, plain = Forecast(**situation), (NOTHING,) * self.acceptance.length
        planned, without = (expected_milliseconds(each, **situation) / batch for each in (policy, plain))
        return Expected(forecast.drafted(policy), any(plan.enumerate for plan in policy), planned, without)

    def _situation(self, batch: int, prompt: int, width: int) -> Situation:
        return Situation(
            batch=batch, prompt=max(prompt, self.shared_prefix + 1), width=width, shared_prefix=self.shared_prefix,
            target=self.target, draft=self.draft, acceptance=self.acceptance,
        )  # fmt: skip


def _rounded(count: int, factor: float) -> int:
    """The nearest power of the factor, the same for all counts near it."""
    return round(float(factor ** round(log(count, factor))))
