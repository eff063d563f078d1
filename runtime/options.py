"""How lists are verified: the choice of a mode and its settings, checked before anything runs."""

from dataclasses import dataclass
from math import isfinite

from ..catalog import checks
from ..catalog.errors import OptionError
from .types import Mode, ScoringKind

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
