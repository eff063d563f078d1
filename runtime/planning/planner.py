"""How much to draft, decided by cost: the measured time of calls and the observed acceptance of drafts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from threading import Lock
from typing import NamedTuple, final

import numpy as np

from ..stats import Call
from ..types import Bool, DraftTree, Frontier, Int64, Verdict
from .acceptance import Acceptance
from .budget import Account, Effort, Trials
from .costs import CallCosts
from .estimates import PRIOR_REQUESTS
from .forecast import Forecast
from .paces import PaceKeeper
from .plans import NOTHING, Learned, Outlook, Paces, Policy, Situation
from .policy import Course, Planning
from .rationale import rationale

DOUBT, LEAST_MS = 0.03, 0.1  # evaluating ahead must save this share and so much a request: forecasts err
WELL_KNOWN, SOME = 200, 7  # once drafts of so many requests of a K were looked at, one batch in so many is
FIRST, SELDOM = 6, 16  # batches without drafts whose time is looked at: the first, and then one in so many
MOVED = 1.15  # factor between paces that makes a policy worth choosing anew
ROUNDING = 1.4  # prompts that differ by less than this factor are planned for as one


@dataclass(frozen=True)
class Choice:
    """What was decided for batches of about one size, prompts of about one length, and one K."""

    policy: Policy
    outlook: Outlook
    simple: Policy  # the best that never drafts
    trial: tuple[Policy, Outlook] | None  # what to try where the policy does not draft, but might
    requests: int  # that its K's acceptance was known by
    paces: Paces

    @property
    def drafts(self) -> bool:
        return any(plan.widths for plan in self.policy)


class Expected(NamedTuple):
    """What a policy is expected to bring a request of a batch."""

    drafted: float  # nodes
    enumerated: bool  # whether all children of some depth are evaluated
    milliseconds: float
    plain: float  # without evaluating anything ahead


Key = tuple[int, int, int]  # batch, prompt, K


@final
class Planner(Planning):
    """Chooses a policy for every kind of batch that comes, and learns from every round. Safe to share between threads.

    What measured costs say beyond doubt is done. What depends on what drafts are worth is tried within an `Account`,
    so that serving never takes noticeably longer than without drafts; planning keeps within an `Effort`.
    """

    def __init__(
        self, target: CallCosts, draft: CallCosts | None, acceptance: Acceptance, *, shared_prefix: int = 0,
        tuned: bool = False,
    ) -> None:  # fmt: skip
        """draft: None where no model drafts; shared_prefix: tokens that the engines have cached of every prompt; tuned:
        whether `acceptance` begins with what was counted before."""
        self.target, self.draft, self.acceptance, self.shared_prefix = target, draft, acceptance, shared_prefix
        self.tuned = tuned
        self.account, self.effort = Account(proven=tuned), Effort()
        self._keeper = PaceKeeper(target, draft)
        self._choices: dict[Key, Choice] = {}
        self._trials: dict[int, Trials] = {}
        self._batches, self._unlooked = 0, 0  # in all, and those evaluated ahead since one was looked at
        self._lock = Lock()

    @property
    def blind(self) -> bool:
        """Whether it could draft, and nobody has tuned it."""
        return self.draft is not None and not self.tuned

    def begin(self, width: Int64, prompt: int) -> Course:
        """See `Planning`; where nothing pays, a course costs next to nothing."""
        ks = set(width[width > 0].tolist())
        if not ks or self.acceptance.length < 2:
            return _Plain(self, None)
        with self._lock:
            choices = {k: self._current(_key(len(width), prompt, k)) for k in ks}
            return self._decided(choices, len(width))

    def _decided(self, choices: Mapping[int, Choice | None], batch: int) -> Course:
        """What is done with a batch; the most that any of its Ks may lose is what must be afforded."""
        self._batches += 1
        known = {k: choice for k, choice in choices.items() if choice is not None}
        if len(known) < len(choices):
            return _Plain(self, None)
        k = max(known)
        self.account.served(self._keeper.plain * known[k].outlook.plain)
        tried = {k: self._tried(k, choice, batch) for k, choice in known.items()}
        if not self.account.affords((1 + self._unlooked) * max(outlook.dose for _, outlook in tried.values())):
            tried = {k: (choice.simple, choice.outlook) for k, choice in known.items()}
        policies = {k: policy for k, (policy, _) in tried.items()}
        if not any(any(plan) for policy in policies.values() for plan in policy) or not self.account.affords(0):
            looked = self.effort.allowed and (self._batches <= FIRST or self._batches % SELDOM == 0)
            return _Plain(self, known[k] if looked else None)
        drafting = {k for k, policy in policies.items() if any(plan.widths for plan in policy)}
        for k in drafting - {k for k, choice in known.items() if choice.drafts}:
            self._trials[k].start()
        self._unlooked += 1
        often = bool(drafting) and self.acceptance.requests(k) < WELL_KNOWN
        weight = self._unlooked if self.effort.allowed and (often or self._unlooked >= SOME) else 0
        self._unlooked -= weight
        return _Ahead(self, policies, known[k], weight)

    def _tried(self, k: int, choice: Choice, batch: int) -> tuple[Policy, Outlook]:
        """The policy, or where it drafts nothing what is to be tried now and then."""
        trials = self._trials.setdefault(k, Trials())
        trials.served += batch
        if not choice.drafts and choice.trial is not None and trials.served >= trials.due:
            return choice.trial
        return choice.policy, choice.outlook

    def _current(self, key: Key) -> Choice | None:
        """The choice for such batches, made anew where much has been learned; None: there was no time to make it."""
        choice = self._choices.get(key)
        if choice is not None:
            requests, then = self.acceptance.requests(key[2]), max(choice.requests, PRIOR_REQUESTS)
            if choice.requests <= requests < 1.5 * then and not _moved(choice.paces, self._keeper.paces):
                return choice
        if self.effort.allowed:
            with self.effort.spent():
                choice = self._choices[key] = self._made(key)
        return choice

    def _made(self, key: Key) -> Choice:
        situation = self._situation(*key)
        requests, paces = self.acceptance.requests(key[2]), self._keeper.paces
        simple, simple_outlook = Forecast(**situation | {"draft": None}).best()
        if not _worth(simple_outlook, key[0]):
            simple = (NOTHING,) * len(simple)
            simple_outlook = simple_outlook._replace(milliseconds=simple_outlook.plain)
        if self.draft is None:
            return Choice(simple, simple_outlook, simple, None, requests, paces)
        forecast = Forecast(**situation)
        policy, outlook = forecast.best()
        best = Choice(policy, outlook, simple, None, requests, paces)
        if best.drafts and _worth(outlook._replace(plain=simple_outlook.milliseconds), key[0]):
            return best
        perfect = Forecast(**situation | {"perfect": True}).best()[1]
        promising = _worth(perfect._replace(plain=simple_outlook.milliseconds), key[0])
        trial = forecast.best_draft() if promising else None
        return Choice(simple, simple_outlook, simple, trial, requests, paces)

    def ended(self, choice: Choice | None, weight: int, ahead: bool, calls: Sequence[Call], seconds: float) -> None:
        """A batch is done, whose nodes were evaluated ahead of need or not.

        choice: by which it was planned, None where nobody looks; weight: how many batches it stands for.
        """
        with self._lock:
            self.effort.serving += seconds
            if choice is None or not weight:
                return
            with self.effort.spent():
                work, foreseen = self._keeper.work(calls), choice.outlook.plain
                took = work.at(choice.paces)
                self._keeper.saw(work, 1000 * seconds, None if ahead else took / foreseen)
                if ahead:
                    plain = foreseen * self._keeper.plain
                    self.account.lost(weight * (took - plain), plain)

    def learn(self, before: Frontier, tree: DraftTree, verdict: Verdict, enumerated: Bool) -> None:
        """Count what came of a round."""
        with self._lock, self.effort.spent():
            self.acceptance.observe(before, tree, verdict, enumerated)

    def policy(self, batch: int, prompt: int, width: int) -> Policy:
        """The policy for such batches, by what is known now."""
        return self._made(_key(batch, prompt, width)).policy

    def rationale(self, batch: int, prompt: int, width: int) -> str:
        """The policy for such batches as a table for people; see `rationale`."""
        return rationale(self.policy(batch, prompt, width), self._situation(*_key(batch, prompt, width)))

    def expected(self, batch: int, prompt: int, width: int) -> Expected:
        """What the policy for such batches is expected to bring."""
        choice = self._made(_key(batch, prompt, width))
        every, found = any(plan.enumerate for plan in choice.policy), choice.outlook
        return Expected(found.drafted, every, found.milliseconds / batch, found.plain / batch)

    def learned(self) -> Learned:
        """What is known by now, what was tuned included."""
        with self._lock:
            trials = {k: each.waiting for k, each in self._trials.items()}
            return Learned(self.acceptance.counts, self._keeper.known(), trials, self.account.standing)

    def recall(self, earlier: Learned) -> None:
        """Begin where another one ended, which served the same by the same. Before anything is planned."""
        self.acceptance.add(earlier.counts)
        self._keeper.recall(earlier.paces)
        self._trials |= {k: Trials.after(waiting) for k, waiting in earlier.trials.items()}
        self.account.resume(earlier.standing)

    def _situation(self, batch: int, prompt: int, width: int) -> Situation:
        return Situation(
            batch=batch, prompt=max(prompt, self.shared_prefix + 1), width=width, shared_prefix=self.shared_prefix,
            target=self.target, draft=self.draft, acceptance=self.acceptance, paces=self._keeper.paces,
        )  # fmt: skip


@final
class _Plain(Course):
    """Nothing is evaluated ahead of need."""

    def __init__(self, planner: Planner, choice: Choice | None) -> None:
        """choice: where the batch's time is looked at."""
        self._planner, self._choice = planner, choice

    def plan(self, frontier: Frontier) -> tuple[Int64, Bool]:
        batch = len(frontier.depth)
        return np.zeros((batch, 0), np.int64), np.zeros(batch, bool)

    def observe(self, before: Frontier, tree: DraftTree, verdict: Verdict) -> None:
        pass

    def end(self, calls: Sequence[Call], seconds: float) -> None:
        self._planner.ended(self._choice, 1, False, calls, seconds)


@final
class _Ahead(Course):
    """A policy for every K."""

    def __init__(self, planner: Planner, policies: Mapping[int, Policy], choice: Choice, weight: int) -> None:
        """weight: how many batches what comes of this one stands for; 0: nobody looks."""
        self._planner, self._policies, self._choice, self._weight = planner, policies, choice, weight
        self._enumerated = np.zeros(0, bool)

    def plan(self, frontier: Frontier) -> tuple[Int64, Bool]:
        plans = []
        for k, policy in self._policies.items():
            mine = frontier.active & (frontier.width == k)
            plans += [(mine & (frontier.depth == s), policy[s]) for s in set(frontier.depth[mine].tolist())]
        batch = len(frontier.depth)
        widths = np.zeros((batch, max((len(plan.widths) for _, plan in plans), default=0)), np.int64)
        self._enumerated = np.zeros(batch, bool)
        for mine, plan in plans:
            self._enumerated |= mine & plan.enumerate
            widths[mine, : len(plan.widths)] = plan.widths
        return widths, self._enumerated

    def observe(self, before: Frontier, tree: DraftTree, verdict: Verdict) -> None:
        if self._weight:
            self._planner.learn(before, tree, verdict, self._enumerated)

    def end(self, calls: Sequence[Call], seconds: float) -> None:
        self._planner.ended(self._choice, self._weight, True, calls, seconds)


def _worth(outlook: Outlook, batch: int) -> bool:
    """Whether so much is saved that it is hardly an error of the forecast."""
    return outlook.plain - max(DOUBT * outlook.plain, LEAST_MS * batch) > outlook.milliseconds


def _moved(then: Paces, now: Paces) -> bool:
    return any(max(a / b, b / a) > MOVED for a, b in zip(then, now, strict=True))


def _key(batch: int, prompt: int, k: int) -> Key:
    """Of batches that are planned for as one."""
    return _rounded(batch, 2.0), _rounded(prompt, ROUNDING), k


def _rounded(count: int, factor: float) -> int:
    """The nearest power of the factor, the same for all counts near it."""
    return round(float(factor ** round(log(count, factor))))
