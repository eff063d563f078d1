"""What can be planned, for whom, and what it is expected to bring: the words of the planner, without its arithmetic."""

from collections.abc import Mapping
from typing import NamedTuple, NotRequired, TypedDict

from .acceptance import Acceptance
from .budget import Waiting
from .costs import EVEN, CallCosts, Sized
from .estimates import Counts


class Plan(NamedTuple):
    """What to evaluate ahead of need in a round."""

    widths: tuple[int, ...] = ()  # nodes that the draft proposes at each level
    enumerate: bool = False  # instead: all children of the frontier


Policy = tuple[Plan, ...]  # for a request that stands at depth 0, 1, ..., L - 1
NOTHING, ENUMERATE = Plan(), Plan(enumerate=True)


class Paces(NamedTuple):
    """How many times as long as is believed each role's calls, by their size, and the host's work are seen to take.

    The host's pace makes drafts dearer, but not the target's calls: of what the host does for these, much is done once
    a batch, and is not saved with a call.
    """

    target: Sized = EVEN
    draft: Sized = EVEN
    host: float = 1.0


class Learned(NamedTuple):
    """What serving taught a planner, for one that comes after it."""

    counts: Mapping[int, Counts]  # by K
    paces: Paces
    trials: Mapping[int, Waiting]  # by K
    standing: float  # of the account


class Situation(TypedDict):
    """What is to be planned for."""

    batch: int  # requests in one call
    prompt: int  # tokens of the longest
    width: int  # K
    shared_prefix: int  # tokens of the prompt that both engines have cached already
    target: CallCosts
    draft: CallCosts | None
    acceptance: Acceptance
    paces: NotRequired[Paces]
    perfect: NotRequired[bool]  # as if drafts held all that is needed wherever they are wide enough


class Outlook(NamedTuple):
    """What a policy is expected to bring a batch."""

    milliseconds: float
    plain: float  # where nothing is evaluated ahead of need
    dose: float  # milliseconds that its drafts cost, whatever they are worth
    drafted: float  # nodes, of one request


class Weighed(NamedTuple):
    """What a batch takes from one depth on under every kind of plan there, in milliseconds."""

    nothing: float
    enumerate: float | None
    draft: tuple[float, Plan] | None  # the best
    chosen: tuple[float, Plan]
