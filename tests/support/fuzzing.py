"""Mutated inputs for readers and loaders, and what they make of them: an answer or one of our errors, in time."""

import json
import random
import resource
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import zip_longest
from pathlib import Path
from traceback import extract_tb
from types import FrameType
from typing import Any

from specbeam.catalog.errors import SpecBeamError, is_fault

# Values that have broken parsers before: JSON text, because Python's own writer refuses some of them.
ODD = (
    "null", "true", "[]", "{}", '""', "0", "-1", "1.5", "1e999", "-1e999", "NaN", "Infinity", str(2**31), str(2**63),
    str(2**64), "-" + str(2**63), "9" * 5000, '"\\ud800"', '"\\u0000"', '"' + "x" * 2000 + '"', "[" * 3000 + "]" * 3000,
    '{"a":' * 3000 + "1" + "}" * 3000, '"../../x"', '"/etc/hostname"', '"NaN"', "[null]", "[[1]]", '{"": 0}',
)  # fmt: skip
HOLE = "\ue000hole\ue000"  # stands where odd JSON text goes


@cache
def drawn(seed: int, number: int = 100) -> tuple[str, ...]:
    """Values of any structure, drawn by hypothesis, as JSON text (with NaN and Infinity)."""
    from hypothesis import HealthCheck, given, settings, strategies
    from hypothesis import seed as seeded

    values = strategies.recursive(
        strategies.one_of(strategies.none(), strategies.booleans(), strategies.integers(), strategies.floats(),
                          strategies.text()),
        lambda part: strategies.lists(part) | strategies.dictionaries(strategies.text(max_size=9), part),
        max_leaves=9,
    )  # fmt: skip
    found: list[str] = []

    @seeded(seed)
    @settings(max_examples=number, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(values)
    def draw(value: object) -> None:
        found.append(json.dumps(value))

    draw()
    return tuple(found)


@dataclass(frozen=True)
class Finding:
    """An input that was answered by neither a result nor one of our errors."""

    data: bytes
    error: str  # "hang", or the exception and where it was raised


@dataclass
class Report:
    """What happened to the inputs of one target."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0
    peak: int = 0  # bytes that the process grew by

    @property
    def hangs(self) -> int:
        """Findings that took too long."""
        return self.kinds().get("hang", 0)

    def add(self, other: "Report") -> None:
        """Count what another part of the same target's inputs came to."""
        self.inputs, self.seconds = self.inputs + other.inputs, self.seconds + other.seconds
        self.accepted, self.refused = self.accepted + other.accepted, self.refused + other.refused
        self.findings += other.findings
        self.peak = max(self.peak, other.peak)

    def kinds(self) -> dict[str, int]:
        """How often each finding was made."""
        counts: dict[str, int] = {}
        for finding in self.findings:
            counts[finding.error] = counts.get(finding.error, 0) + 1
        return counts


def mutated(seeds: Sequence[bytes], number: int, *, seed: int = 0) -> Iterator[bytes]:
    """Bytes changed blindly: flipped, cut, doubled, replaced by odd ones, spliced with another seed's."""
    chance = random.Random(seed)
    for _ in range(number):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
            _change_bytes(data, seeds, chance)
        yield bytes(data)


def alternating(*kinds: Iterator[bytes]) -> Iterator[bytes]:
    """Inputs of all kinds in turn, so that a run which is cut short has some of each."""
    for some in zip_longest(*kinds):
        yield from (data for data in some if data is not None)


def mutated_json(seeds: Sequence[bytes], number: int, *, seed: int = 0, lines: bool = False) -> Iterator[bytes]:
    """JSON (with `lines`: JSON lines) changed in its structure: values replaced, keys lost, doubled or renamed."""
    chance, values = random.Random(seed), drawn(seed)
    for _ in range(number):
        data = chance.choice(seeds)
        if not lines:
            yield _odd_json(data, chance, values)
            continue
        parts = data.splitlines(keepends=True)
        where = chance.randrange(len(parts))
        parts[where] = _odd_json(parts[where], chance, values).replace(b"\n", b" ") + b"\n"
        yield b"".join(parts)


def fuzz(
    use: Callable[[bytes], object],
    inputs: Iterable[bytes],
    *,
    seconds: float = 10.0,
    memory: int = 2 << 30,
    allowed: tuple[type[BaseException], ...] = (SpecBeamError,),
    progress: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Use every input; collect what is neither a result nor an `allowed` error.

    seconds: an input that takes longer hangs. memory: bytes that the address space may grow by (a MemoryError is a
    finding). Runs in the main thread, because a hang is ended by a signal.
    """
    report, began = Report(), time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with _memory_limit(memory):
        for data in inputs:
            report.inputs += 1
            try:
                with _deadline(seconds):
                    use(data)
                report.accepted += 1
            except allowed:
                report.refused += 1
            except _Hang:
                report.findings.append(Finding(data, "hang"))
            except BaseException as error:
                if not is_fault(error):
                    raise
                last = extract_tb(error.__traceback__)[-1]
                where = f"{Path(last.filename).name}:{last.lineno}"
                report.findings.append(Finding(data, f"{type(error).__name__} at {where}: {str(error)[:120]}"))
            progress(report)
    report.seconds = time.perf_counter() - began
    report.peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return report


def _change_bytes(data: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    kind, where = chance.randrange(8), chance.randrange(len(data) + 1)
    span = slice(where, where + chance.choice((1, 1, 4, 8, 64)))
    if kind == 0 and where < len(data):
        data[where] ^= 1 << chance.randrange(8)
    elif kind == 1:
        data[span] = chance.randbytes(len(data[span]))
    elif kind == 2:
        del data[span]
    elif kind == 3:
        del data[where:]
    elif kind == 4:
        data[where:where] = data[span]
    elif kind == 5:
        data[where:where] = chance.choice(ODD).encode()
    elif kind == 6:
        data[span] = bytes([chance.choice((0, 0x7F, 0x80, 0xFF))]) * len(data[span])
    else:
        other = chance.choice(seeds)
        data[where:] = other[chance.randrange(len(other) + 1) :]


def _odd_json(data: bytes, chance: random.Random, values: Sequence[str]) -> bytes:
    tree = [json.loads(data)]
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        holder, key = chance.choice(places)
        _change_value(holder, key, chance)
    text = json.dumps(tree[0]) if tree else "null"
    odd = chance.choice((ODD, values))
    while f'"{json.dumps(HOLE)[1:-1]}"' in text:
        text = text.replace(f'"{json.dumps(HOLE)[1:-1]}"', chance.choice(odd), 1)
    return text.encode("utf-8", "surrogatepass")


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every value of a tree, as what holds it and its key there."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in pairs:
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _change_value(holder: Any, key: Any, chance: random.Random) -> None:
    kind, value = chance.randrange(6), holder[key]
    if kind == 0 and not (isinstance(holder, list) and len(holder) == 1):
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[chance.choice(("", "x", key + "_", key.upper()))] = holder.pop(key)
    elif kind == 2 and isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = chance.choice((value + 1, value - 1, -value, value * 2, 0, 2**31 - 1, value + 0.5))
    elif kind == 3 and isinstance(value, list) and value:
        value.append(chance.choice(value))
    elif kind == 4:
        holder[key] = [value]
    else:
        holder[key] = HOLE


class _Hang(BaseException):
    """An input took too long; no `except Exception` may swallow it."""


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise _Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _memory_limit(growth: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + growth, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
