"""What an evaluation measures: the settings, and the searches that they ask for."""

from typing import Final, Literal

import msgspec

from ..catalog import checks
from ..catalog.checks import Checked
from ..catalog.errors import OptionError
from ..catalog.files import Frozen
from ..runtime import Batching, Drafting, DraftShape, EngineChoice, Verification
from ..runtime.options import SAMPLING, Speculation
from ..runtime.types import DrafterKind, Mode, ScoringKind

Rule = Literal["reuse", "all-or-nothing"]
Baseline = Literal["plain", "generate"]
Drafts = Literal["nothing", "auto", "fixed"]
PLAIN: Final = "plain"
GENERATE: Final = "generate"
TOP_K: Final = (1, 3, 5, 10, 20)


class Settings(Checked, frozen=True):
    """What is measured, and how. Raises `OptionError` for what cannot be combined."""

    top_k: tuple[int, ...] = TOP_K
    verify: tuple[Mode, ...] = ("strict",)
    rule: Literal["reuse", "all-or-nothing", "both"] = "reuse"
    against: tuple[Baseline, ...] = (PLAIN, GENERATE)
    split: Literal["test", "valid"] = "test"
    users: int | None = None  # requests to draw at random; None: all
    timed_users: int = 32  # rounds of the walltime at each batch size; 0: none
    batching: Batching = Batching()
    engine: EngineChoice = EngineChoice()
    # auto: for modes whose lists do not depend on it. None: likewise, unless a shape is given or rules are compared.
    drafting: Drafting = Drafting()
    scoring: ScoringKind | None = None  # None: the bundle's
    slack: float | None = None
    temperature: float | None = None
    seed: int = 0  # of the draw of requests, of the intervals and of sampling modes

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, values in (("K", self.top_k), ("modes", self.verify)):
            if not values or len(set(values)) != len(values):
                raise OptionError(f"got the {name} {values}; expected at least one, and each once.")
        checks.within(self, 1, top_k=checks.LARGEST, users=checks.LARGEST)
        checks.within(self, 0, timed_users=checks.LARGEST, seed=checks.LARGEST_SEED)
        if not self.drafting.reuse:
            raise OptionError('evaluations are discarded by the rule "all-or-nothing". Leave reuse=False out.')
        if self.slack is not None and "tolerant" not in self.verify:
            raise OptionError("a slack is for tolerant verification, which is not asked for. Leave it out.")
        if self.temperature is not None and not set(SAMPLING) & set(self.verify):
            raise OptionError(f"a temperature is for {' and '.join(SAMPLING)} verification. Leave it out.")

    def written(self) -> "WrittenSettings":
        """As a file of figures holds them."""
        engine, drafting, own = self.engine, self.drafting, msgspec.structs.asdict(self)
        for group in ("engine", "drafting", "batching"):
            del own[group]
        return WrittenSettings(
            **own, batch_size=self.batching.size, threads=engine.threads, engine=engine.name, drafter=drafting.drafter,
            pool=None if drafting.pool is None else str(drafting.pool), speculation=drafting.speculation,
            shape=drafting.shape,
        )  # fmt: skip


class WrittenSettings(Frozen, frozen=True):
    """`Settings` in a file, without structure."""

    top_k: tuple[int, ...]
    verify: tuple[Mode, ...]
    rule: Literal["reuse", "all-or-nothing", "both"]
    against: tuple[Baseline, ...]
    split: Literal["test", "valid"]
    users: int | None
    timed_users: int
    batch_size: int
    threads: int | None
    engine: str | None
    drafter: DrafterKind | None
    pool: str | None
    speculation: Speculation | None
    shape: DraftShape | None
    scoring: ScoringKind | None
    slack: float | None
    temperature: float | None
    seed: int


class Search(Frozen, frozen=True):
    """One way to serve requests: a line of the figures."""

    name: str
    mode: Mode
    scoring: ScoringKind
    drafting: Drafts
    shape: DraftShape | None = None  # of fixed drafting
    rule: Rule = "reuse"
    slack: float | None = None
    temperature: float | None = None
    seed: int | None = None

    @property
    def verification(self) -> Verification:
        return Verification(self.mode, self.scoring, self.slack, self.temperature, self.seed)

    @property
    def exact(self) -> bool:
        """Whether its lists must be plain beam search's."""
        return self.mode == "strict" and self.name != PLAIN


def searches_of(
    settings: Settings, scoring: ScoringKind, *, has_draft: bool, planned: bool = True
) -> tuple[Search, ...]:
    """Every mode that is asked for, under each rule; behind them, if wanted, plain beam search.

    scoring: the bundle's; planned: whether auto can plan: the engine has a latency, and drafting is not ruled out.
    Raises `OptionError` for what needs a draft that is not there.
    """
    drafting = settings.drafting
    if not has_draft and "relaxed" in settings.verify:
        raise OptionError(
            "relaxed verification needs a draft, and there is none. Leave it out, export with --draft or give a --pool."
        )
    if not has_draft and (drafting.shape is not None or drafting.speculation == "fixed"):
        raise OptionError(
            "there is no draft model and no pool: leave the draft's width and length, and --speculation fixed, out."
        )
    rules: tuple[Rule, ...] = ("reuse", "all-or-nothing") if settings.rule == "both" else (settings.rule,)
    scoring = settings.scoring or scoring
    by_default = drafting.speculation is None and drafting.shape is None and planned
    # auto plans for the rule that keeps what was evaluated
    auto = drafting.speculation == "auto" or (by_default and (settings.rule == "reuse" or not has_draft))
    searches = [_search(settings, mode, rule, scoring, has_draft, auto) for mode in settings.verify for rule in rules]
    if PLAIN in settings.against:
        searches.append(Search(name=PLAIN, mode="strict", scoring=scoring, drafting="nothing"))
    return tuple(searches)


def _search(settings: Settings, mode: Mode, rule: Rule, scoring: ScoringKind, has_draft: bool, auto: bool) -> Search:
    sampling = mode in SAMPLING
    chosen = Verification(
        mode, "constrained" if mode == "sampled" else scoring, settings.slack if mode == "tolerant" else None,
        settings.temperature if sampling else None, settings.seed if sampling else None,
    )  # fmt: skip
    auto = chosen.lossless and auto
    drafting: Drafts = "auto" if auto else "fixed" if has_draft else "nothing"
    return Search(
        name=mode if rule == "reuse" else f"{mode}, {rule}", mode=mode, scoring=chosen.scoring or scoring, rule=rule,
        drafting=drafting, shape=settings.drafting.shape or DraftShape() if drafting == "fixed" else None,
        slack=chosen.slack, temperature=chosen.temperature, seed=chosen.seed,
    )  # fmt: skip
