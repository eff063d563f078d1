"""How much to draft, decided by cost: the measured time of calls and the observed acceptance of drafts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from threading import Lock
from typing import NamedTuple, final

from ...catalog.trie import ItemTrie
from ..stats import Call
from ..types import Bool, DraftTree, Frontier, Int64, Verdict
from .acceptance import Acceptance
from .budget import Account, Effort, Trials
from .costs import CallCosts
from .courses import Ahead, Key, Look, Plain, Watcher
from .estimates import CENSUS_REQUESTS
from .forecast import Forecast
from .paces import PaceKeeper
from .plans import NOTHING, Learned, Outlook, Paces, Policy, Situation
from .policy import Course, Planning
from .rationale import rationale

DOUBT, LEAST_MS = 0.03, 0.1  # evaluating ahead must save this share and so much a request: forecasts err
WELL_KNOWN, SOME = 200, 7  # once drafts of so many requests of a K were looked at, one batch in so many is
BEFORE = 2  # batches that are looked at before anything is planned by beliefs that nobody tuned
FIRST, SELDOM = 6, 16  # batches, with drafts and without, whose time is looked at: the first; then one plain in so many
MOVED = 1.25  # factor between paces that makes a policy worth choosing anew
ROUNDING = 2.0, 4.0  # batches, and prompts, whose sizes differ by less than this factor are planned for as one


@dataclass(frozen=True)
class Choice:
    """What was decided for batches of about one size, prompts of about one length, and one K."""

    policy: Policy
    outlook: Outlook
    simple: Policy  # the best that never drafts
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


@final
class Planner(Planning, Watcher):
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
        self._before = 0 if tuned else BEFORE
        self._keeper = PaceKeeper(target, draft)
        self._choices: dict[Key, Choice] = {}
        self._settled: dict[Key, int] = {}  # those that fit the paces, and the version of the acceptance that they fit
        self._trials: dict[int, Trials] = {}
        self._tries: dict[Key, tuple[Policy, Outlook] | None] = {}  # what to try where the choice does not draft
        self._batches, self._ahead = 0, 0  # in all, and those in which something was evaluated ahead
        self._unlooked = 0  # of the latter, since one was looked at
        self._lock = Lock()

    @property
    def blind(self) -> bool:
        """Whether it could draft, and nobody has tuned it."""
        return self.draft is not None and not self.tuned

    def begin(self, width: Int64, prompt: int) -> Course:
        """See `Planning`; where nothing pays, a course costs next to nothing."""
        ks = set(width[width > 0].tolist())
        if not ks or self.acceptance.length < 2:
            return Plain(self, None)
        with self._lock:
            keys = {k: _key(len(width), prompt, k) for k in ks}
            self._batches += 1
            if self._batches <= self._before:
                return Plain(self, Look((len(width), prompt, max(ks)), 1, ahead=False))
            return self._decided(keys, {k: self._current(key) for k, key in keys.items()}, len(width), prompt)

    def resume(self, width: Int64, prompt: int) -> Course:
        """See `Planning`. What was decided for such batches is done; nothing is lent for trials."""
        ks = set(width[width > 0].tolist())
        with self._lock:
            if not ks or self.acceptance.length < 2 or self._batches < self._before or not self.account.affords(0):
                return Plain(self, None)
            choices = {k: self._current(_key(len(width), prompt, k)) for k in ks}
            policies = {k: choice.policy for k, choice in choices.items() if choice is not None}
            pays = len(policies) == len(ks) and any(any(plan) for policy in policies.values() for plan in policy)
            return Ahead(self, policies, None) if pays else Plain(self, None)

    def _decided(
        self, keys: Mapping[int, Key], choices: Mapping[int, Choice | None], batch: int, prompt: int
    ) -> Course:  # fmt: skip
        """What is done with a batch; the most that any of its Ks may lose is what must be afforded."""
        known = {k: choice for k, choice in choices.items() if choice is not None}
        if len(known) < len(choices):
            return Plain(self, None)
        k = max(known)
        self.account.served(self._keeper.plain * known[k].outlook.plain)
        tried = {k: self._tried(keys[k], choice, batch) for k, choice in known.items()}
        if not self.account.affords((1 + self._unlooked) * max(outlook.dose for _, outlook in tried.values())):
            tried = {k: (choice.simple, choice.outlook) for k, choice in known.items()}
        policies = {k: policy for k, (policy, _) in tried.items()}
        if not any(any(plan) for policy in policies.values() for plan in policy) or not self.account.affords(0):
            looked = self.effort.may_look and (self._batches <= FIRST or self._batches % SELDOM == 0)
            return Plain(self, Look((batch, prompt, k), 1, ahead=False) if looked else None)
        drafting = {k for k, policy in policies.items() if any(plan.widths for plan in policy)}
        for k in drafting - {k for k, choice in known.items() if choice.drafts}:
            self._trials[k].start()
        self._unlooked, self._ahead = self._unlooked + 1, self._ahead + 1
        often = self._ahead <= FIRST or (bool(drafting) and self.acceptance.drafted(k) < WELL_KNOWN)
        weight = self._unlooked if self.effort.may_look and (often or self._unlooked >= SOME) else 0
        self._unlooked -= weight
        return Ahead(self, policies, Look((batch, prompt, k), weight, ahead=True) if weight else None)

    def _tried(self, key: Key, choice: Choice, batch: int) -> tuple[Policy, Outlook]:
        """The policy, or where it drafts nothing what is to be tried now and then."""
        trials = self._trials.setdefault(key[2], Trials())
        trials.served += batch
        if choice.drafts or self.draft is None or trials.served < trials.due:
            return choice.policy, choice.outlook
        if key not in self._tries and self.effort.may_plan:
            with self.effort.spent():
                self._tries[key] = self._promising(key, choice)
        trial = self._tries.get(key)
        return (choice.policy, choice.outlook) if trial is None else trial

    def _current(self, key: Key) -> Choice | None:
        """The choice for such batches, made anew where much has been learned.

        None: there was no time to make it.
        """
        choice, version = self._choices.get(key), self.acceptance.version
        if choice is not None and self._settled.get(key) == version:
            return choice
        if choice is not None and self._fits(key, choice):
            self._settled[key] = version
        elif self.effort.may_plan:
            with self.effort.spent():
                choice = self._choices[key] = self._made(key)
            self._settled[key] = version
            self._tries.pop(key, None)
        return choice

    def _fits(self, key: Key, choice: Choice) -> bool:
        """Whether about as much was known when a choice was made as is now."""
        requests, then = self.acceptance.requests(key[2]), max(choice.requests, CENSUS_REQUESTS)
        return choice.requests <= requests < 1.5 * then and not _moved(choice.paces, self._keeper.paces)

    def _made(self, key: Key) -> Choice:
        situation = self._situation(*key)
        requests, paces = self.acceptance.requests(key[2]), self._keeper.paces
        forecast = Forecast(**situation)
        simple, simple_outlook = forecast.best_simple()
        if not _worth(simple_outlook, key[0]):
            simple = (NOTHING,) * len(simple)
            simple_outlook = simple_outlook._replace(milliseconds=simple_outlook.plain)
        if self.draft is not None:
            policy, outlook = forecast.best()
            best = Choice(policy, outlook, simple, requests, paces)
            if best.drafts and _worth(outlook._replace(plain=simple_outlook.milliseconds), key[0]):
                return best
        return Choice(simple, simple_outlook, simple, requests, paces)

    def _promising(self, key: Key, choice: Choice) -> tuple[Policy, Outlook] | None:
        """The best policy that drafts, where one could pay if drafts held all that is needed."""
        situation = self._situation(*key)
        perfect = Forecast(**situation | {"perfect": True}).best()[1]
        promising = _worth(perfect._replace(plain=choice.outlook.milliseconds), key[0])
        return Forecast(**situation).best_draft() if promising else None

    def ended(self, look: Look | None, calls: Sequence[Call], seconds: float) -> None:
        """See `Watcher`; of what was evaluated ahead it is booked what it cost."""
        with self._lock:
            self.effort.serving += seconds
            if look is None:
                return
            with self.effort.spent():
                work, plain = self._keeper.work(calls), self._keeper.work(self._plain_calls(look.batch))
                self._keeper.saw(work, 1000 * seconds, None if look.ahead else plain)
                self._settled.clear()
                if look.ahead:
                    paces, foreseen = self._keeper.paces, self._keeper.plain * plain.at(self._keeper.paces)
                    self.account.lost(look.weight * (work.at(paces) - foreseen), foreseen)

    def left(self, look: Look | None, seconds: float) -> None:
        """See `Watcher`."""
        with self._lock:
            self.effort.serving += seconds
            self._unlooked += look.weight if look is not None and look.ahead else 0

    def _plain_calls(self, of: Key) -> list[Call]:
        """The calls of such a batch if nothing is evaluated ahead; nobody knows how long they take."""
        batch, prompt, k = of
        known, fresh = self.acceptance.estimates(k), max(prompt - self.shared_prefix, 1)
        later = [need for need, idle in zip(known.needed[1:], known.idle[1:], strict=True) if idle < 0.5]
        first = Call("target", batch, self.shared_prefix, fresh, fresh, 0.0)
        return [first, *(Call("target", batch, prompt, round(need), 0, 0.0) for need in later)]

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

    def for_trie(self, trie: ItemTrie) -> "Planner":
        alike = trie.length == self.acceptance.length  # else its depths are others
        acceptance, tuned = Acceptance(trie, self.acceptance.scoring), self.tuned and alike
        other = Planner(self.target, self.draft, acceptance, shared_prefix=self.shared_prefix, tuned=tuned)
        if alike:
            other.recall(self.learned())
        return other

    def learned(self) -> Learned:
        """What is known by now, what was tuned included."""
        with self._lock:
            trials = {k: each.waiting for k, each in self._trials.items()}
            return Learned(self.acceptance.counts, self._keeper.paces, trials, self.account.standing)

    def recall(self, earlier: Learned) -> None:
        """Begin where another one ended, which served the same by the same. Before anything is planned."""
        self.acceptance.add(earlier.counts)
        self._keeper.recall(earlier.paces)
        self._trials |= {k: Trials.after(waiting) for k, waiting in earlier.trials.items()}
        self.account.resume(earlier.standing)
        self._before = 0

    def _situation(self, batch: int, prompt: int, width: int) -> Situation:
        return Situation(
            batch=batch, prompt=max(prompt, self.shared_prefix + 1), width=width, shared_prefix=self.shared_prefix,
            target=self.target, draft=self.draft, acceptance=self.acceptance, paces=self._keeper.paces,
        )  # fmt: skip


def _worth(outlook: Outlook, batch: int) -> bool:
    """Whether so much is saved that it is hardly an error of the forecast."""
    return outlook.plain - max(DOUBT * outlook.plain, LEAST_MS * batch) > outlook.milliseconds


def _moved(then: Paces, now: Paces) -> bool:
    pairs = zip((*then.target, *then.draft, then.host), (*now.target, *now.draft, now.host), strict=True)
    return any(max(a / b, b / a) > MOVED for a, b in pairs)


def _key(batch: int, prompt: int, k: int) -> Key:
    """Of batches that are planned for as one."""
    return _rounded(batch, ROUNDING[0]), _rounded(prompt, ROUNDING[1]), k


def _rounded(count: int, factor: float) -> int:
    """The nearest power of the factor, the same for all counts near it."""
    return round(float(factor ** round(log(count, factor))))
