"""A race as text: Markdown tables, and what their headings mean."""

from collections.abc import Iterator, Sequence

from ...runtime.metrics import FEWEST, Estimate
from ..settings import GENERATE, PLAIN
from ..table import machine, table
from .check import Check
from .figures import PARTS, Lane, Race
from .settings import FLOOR, TOLD

SPEED_TOLD = """\
ms: of a request, its share of its batch. median, p95, p99: ms of a whole batch, over the turns.
x plain, x generate: how many times as fast as that baseline in the same rounds.
floor: how many times as long as the plain loop's bare calls took in the same rounds.
Brackets: 95 % intervals of the turns' medians."""
WORK_TOLD = """\
Means of a request: calls of either model in which it had tokens, and rows of log-probabilities behind the prompt's;
then its ms: prompt, calls that bring prompts (for our loop with the first nodes); target, its other calls and caches;
draft, the draft's calls and guesses of a pool; planning, how much to draft; selection, everything else: the trie,
choosing beams, putting calls together. MB: what its turns added to the process's memory at most, weights left out."""


def described(race: Race) -> str:
    """The whole race."""
    ours = [name for name in TOLD if any(lane.name == name for lane in race.lanes)]
    head = [
        f"{race.setup.bundle}: L = {race.setup.identifier_length}, {race.setup.engine}; {race.requests} requests of "
        f"{', '.join(race.sources.histories) or 'a program'}",
        machine(race.setup),
        *(f"{name}: {TOLD[name]}" for name in ours),
    ]
    parts = ["\n".join(head), _speed(race), _work(race), _lists(race)]
    if race.peak_memory is not None:
        parts.append(f"The process had {race.peak_memory:,.0f} MB at most, with the weights of all contestants.")
    return "\n\n".join(parts + [f"Note: {note}." for note in race.notes])


def _speed(race: Race) -> str:
    heads = ["K", "batch", "contestant", "turns", "ms", "median", "p95", "p99", "users/s", "x plain", "x generate"]
    heads += ["floor"] if race.settings.oracle else []

    def rows() -> Iterator[Sequence[str]]:
        for lane in race.lanes:
            latency = (lane.latency.median, lane.latency.p95, lane.latency.p99)
            row = [*_place(lane), str(lane.turns), f"{lane.milliseconds.value:.2f}", *(f"{ms:.1f}" for ms in latency)]
            row += [f"{lane.users_per_second:.1f}", *(_ratio(lane.speedup.get(base)) for base in (PLAIN, GENERATE))]
            over = lane.over_floor
            yield [*row, *([_ratio(over)] if race.settings.oracle else [])]

    return table("Speed", heads, rows(), SPEED_TOLD)


def _work(race: Race) -> str:
    heads = ["K", "batch", "contestant", "target calls", "draft calls", "nodes", *PARTS, "MB"]

    def rows() -> Iterator[Sequence[str]]:
        for lane in race.lanes:
            work = lane.work
            counts = f"{work.target_calls:.2f}", f"{work.draft_calls:.2f}", f"{work.nodes:.1f}"
            parts = (f"{work.milliseconds[part]:.2f}" for part in PARTS)
            yield [*_place(lane), *counts, *parts, "-" if lane.memory is None else f"{lane.memory:.0f}"]

    return table("Work", heads, rows(), WORK_TOLD)


def _lists(race: Race) -> str:
    """Whether all found the same."""
    checked = sum(lane.checked for lane in race.lanes)
    said = [f"{checked - race.differing} of {checked} lists are those of the plain loop (scores within rounding)."]
    said += [
        f"DIFFERENT: {lane.name}, K {lane.k}, batch {lane.batch}: {lane.differing} of {lane.checked}; the first: "
        f"{lane.fault}"
        for lane in race.lanes
        if lane.differing
    ]
    return "\n".join(said)


def compared(check: Check) -> str:
    """What a check found."""
    lines = [f"Not as it was: {difference}" for difference in check.differing]
    same = check.ratios - check.few - len(check.moved)
    lines.append(f"{same} of {check.ratios} stored ratios are as they were, within both intervals.")
    if check.few:
        lines.append(f"{check.few} say nothing: they are of fewer than {FEWEST} turns (--seconds, --rounds).")
    for each in check.moved:
        word = "faster" if each.now.value > each.then.value else "slower"
        lines.append(
            f"MOVED: {each.name}, K {each.k}, batch {each.batch}, over {each.base}: {_ratio(each.then)} stored, "
            f"{_ratio(each.now)} now: {word}"
        )
    return "\n".join(lines + [f"Not measured now: {name}" for name in check.missing])


def _place(lane: Lane) -> list[str]:
    return [str(lane.k), str(lane.batch), "(floor)" if lane.name == FLOOR else lane.name]


def _ratio(number: Estimate | None) -> str:
    return "" if number is None else f"{number.value:.2f} [{number.low:.2f}, {number.high:.2f}]"
