"""What callers choose, as values that are checked before anything runs: how lists are verified, what drafts them and
how much, what runs it, and what a batch may be."""

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Literal, get_args

from ..catalog import checks
from ..catalog.errors import OptionError
from ..engines.bundle.model import ModelBundle
from ..engines.registry import chosen_engine, chosen_threads
from ..pools.items.pool import ItemPool
from .types import DrafterKind, DraftShape, Mode, ScoringKind

Speculation = Literal["auto", "fixed"]
Device = Literal["cpu", "cuda"]

SAMPLING = ("relaxed", "sampled")
COLDEST = 1e-6  # by then the best items are certain; colder, numbers overflow
LOSSLESS = ("strict", "sampled")  # whose answer does not depend on what is drafted


@dataclass(frozen=True)
class Verification:
    """A mode of verification and its settings; None is the mode's own default.

    strict: the target's beam search. tolerant: strict, but evaluated nodes may stand in for missing ones
    that score at most `slack` nats higher. relaxed: AtSpeed's sampling verification, an approximation.
    sampled: K items drawn without replacement, exactly from the target's distribution. Raises
    `OptionError` for what cannot be combined.
    """

    mode: Mode = "strict"
    scoring: ScoringKind | None = None  # default: the bundle's; always "constrained" for sampled
    slack: float | None = None  # nats; tolerant needs it
    temperature: float | None = None  # relaxed and sampled: 1 by default
    seed: int | None = None  # relaxed and sampled: 0 by default

    def __post_init__(self) -> None:
        checks.check_types(self)
        if self.mode == "sampled" and self.scoring == "full":
            raise OptionError(
                "sampled verification cannot use full scoring: a prefix's probability must be the sum of its "
                "continuations'. Leave the scoring out, or choose constrained."
            )
        self._check_slack()
        self._check_sampling()

    def _check_slack(self) -> None:
        if self.mode == "tolerant" and self.slack is None:
            raise OptionError(
                "tolerant verification needs a slack: how many nats a stand-in may score lower, e.g. 0.1."
            )
        if self.mode != "tolerant" and self.slack is not None:
            raise OptionError(f"a slack of {self.slack:g} is for tolerant verification; got {self.mode}. Leave it out.")
        if self.slack is not None and not (isfinite(self.slack) and self.slack >= 0):
            raise OptionError(f"got a slack of {self.slack:g}; expected nats, 0 or more (0 is strict).")

    def _check_sampling(self) -> None:
        given = {"temperature": self.temperature, "seed": self.seed}
        for name, value in given.items():
            if value is not None and self.mode not in SAMPLING:
                shown = f"{value:g}" if name == "temperature" else value
                raise OptionError(
                    f"a {name} of {shown} is for {' and '.join(SAMPLING)} verification; got {self.mode}, which "
                    "samples nothing. Leave it out."
                )
        if self.temperature is not None and not (isfinite(self.temperature) and self.temperature >= COLDEST):
            raise OptionError(
                f"got a temperature of {self.temperature:g}; expected more than 0, at least {COLDEST:g} (for the best "
                "items without chance use strict verification)."
            )

    @property
    def lossless(self) -> bool:
        """Whether the answer is the same whatever is drafted."""
        return self.mode in LOSSLESS or self.slack == 0


@dataclass(frozen=True)
class Drafting:
    """What drafts, and how much. Raises `OptionError` for what is neither; what a bundle has is seen when it is opened.

    speculation: "auto" drafts as much as pays, by the engines' measured latency and what has been accepted (see
    `specbeam tune`); "fixed" drafts `shape` in every round. Default: auto, unless a shape is given or the mode's answer
    depends on what is drafted.
    """

    drafter: DrafterKind | None = None  # what drafts are guessed by; None: what there is of a draft model and a pool
    pool: str | Path | ItemPool | None = None  # of items (`specbeam build-pool --items`), for retrieval and both
    speculation: Speculation | None = None
    shape: DraftShape | None = None  # of fixed drafts; None: `DraftShape()`
    reuse: bool = True  # False: a missing node discards its round's evaluations, as AtSpeed does; to compare with
    keep: bool = False  # what auto learns, in the user's cache, for the next process (`catalog.user_cache`)

    def __post_init__(self) -> None:
        if self.drafter is not None:
            checks.choice(self.drafter, "drafter", get_args(DrafterKind))
        if self.pool is not None and not isinstance(self.pool, ItemPool):
            checks.path(self.pool, "pool")
        if self.speculation is not None:
            checks.choice(self.speculation, "speculation", get_args(Speculation))
        if self.shape is not None:
            checks.instance(self.shape, "shape", DraftShape, "such as DraftShape(40, 3)")
        checks.flag(self.reuse, "reuse")
        checks.flag(self.keep, "keep")
        if self.speculation == "auto" and self.shape is not None:
            raise OptionError(f"auto decides how much to draft; got {self.shape} as well. Leave one of the two out.")

    def opened_pool(self) -> ItemPool | None:
        """The pool, opened. Raises `PoolError` where it cannot be used."""
        return self.pool if self.pool is None or isinstance(self.pool, ItemPool) else ItemPool.open(self.pool)


@dataclass(frozen=True)
class EngineChoice:
    """What runs: one of a bundle's engines. Raises `OptionError` for what cannot be a choice."""

    name: str | None = None  # that `specbeam inspect` lists, or torch-cpu-fp32; None: the bundle's default engine
    device: Device | None = None  # of the engines that are built, one on it; None: on any
    threads: int | None = None  # of each engine, at most 1024; None: all processors of this process

    def __post_init__(self) -> None:
        if self.name is not None:
            checks.text(self.name, "an engine's name")
        if self.device is not None:
            checks.choice(self.device, "an engine's device", get_args(Device))
        if self.threads is not None:
            threads = checks.whole_number(self.threads, "threads", 1, checks.MOST_THREADS)
            object.__setattr__(self, "threads", threads)

    def of(self, bundle: ModelBundle) -> tuple[str, int]:
        """The engine's name in a bundle, and its threads. Raises `BundleError` where it is not known which is meant."""
        return chosen_engine(bundle, self.name, self.device), chosen_threads(self.threads)


@dataclass(frozen=True)
class Batching:
    """What a batch may be."""

    size: int = 8  # requests in one call, at most
    memory: int | None = None  # bytes that this process may have, what is loaded included; None: whatever it takes

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checks.whole_number(self.size, "a batch's size"))
        if self.memory is not None:
            object.__setattr__(
                self, "memory", checks.whole_number(self.memory, "a batch's memory", 1, checks.MOST_MEMORY)
            )
