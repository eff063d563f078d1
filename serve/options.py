"""How requests are served, as a value that is checked before anything runs."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..catalog import checks
from ..runtime.options import Batching

LONGEST_WAIT = 60_000  # ms
LARGEST_BATCH = 1024
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
    memory: int | None = None  # as of `Batching`: requests for which it does not suffice wait until others have landed

    @property
    def batching(self) -> Batching:
        """What a model is opened with for it."""
        return Batching(self.size, self.memory)

    def __post_init__(self) -> None:
        checks.choice(self.policy, "a policy", get_args(Policy))
        object.__setattr__(self, "size", checks.whole_number(self.size, "a batch's size", 1, LARGEST_BATCH))
        object.__setattr__(self, "memory", self.batching.memory)
        object.__setattr__(self, "queue", checks.whole_number(self.queue, "the queue's length"))
        wait = self.wait_ms
        if isinstance(wait, bool) or not isinstance(wait, int | float | np.number) or not 0 <= wait <= LONGEST_WAIT:
            raise checks.refused(wait, "wait_ms", f"milliseconds, 0 to {LONGEST_WAIT}")
        object.__setattr__(self, "wait_ms", float(wait))
