"""How requests are served, as a value that is checked before anything runs."""

from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from ..catalog import checks
from ..catalog.errors import OptionError

Policy = Literal["gathered", "in-flight"]


@dataclass(frozen=True)
class Serving:
    """How requests share calls. Raises `OptionError` for what cannot be.

    gathered: a batch runs to its end, and what comes meanwhile waits. in-flight: in every round, requests that are done
    leave and waiting ones join.
    """

    policy: Policy = "gathered"
    size: int = 8  # requests that share a call, at most
    wait_ms: float = 0.0  # gathered: how long a batch that is not full waits for more
    queue: int = 256  # requests that wait, at most

    def __post_init__(self) -> None:
        checks.choice(self.policy, "a policy", get_args(Policy))
        object.__setattr__(self, "size", checks.whole_number(self.size, "a batch's size"))
        object.__setattr__(self, "queue", checks.whole_number(self.queue, "the queue's length"))
        if isinstance(self.wait_ms, bool) or not isinstance(self.wait_ms, int | float):
            raise checks.refused(self.wait_ms, "wait_ms", "milliseconds")
        if not (isfinite(self.wait_ms) and 0 <= self.wait_ms <= 60_000):
            raise OptionError(f"got a wait of {self.wait_ms:g} ms; expected 0 to 60000.")
