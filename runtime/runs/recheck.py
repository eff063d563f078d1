"""A share of a run's lists, ranked again by plain beam search on an engine of the exported precision."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from ...catalog import checks
from ...catalog.errors import BundleError, OptionError
from ...catalog.hashing import mix, uniform
from ...catalog.trie import ItemTrie
from ...engines.bundle.facts import EngineFacts
from ...engines.bundle.items import Bundle
from ...engines.bundle.names import EngineName
from ..metrics import NEAR
from ..options import LOSSLESS, Batching, EngineChoice, Verification
from ..recommender import Recommender
from ..types import Recommendation, Request, RequestFailure

SALT = np.uint64(0x5EED_0F_C4EC)  # which requests are chosen has nothing to do with what they draw
ROUNDED = 0.9  # least mean overlap of an engine that rounds: of another precision than was exported, or of a half one


@dataclass(frozen=True)
class Agreement:
    """How one list compares with the reference's."""

    overlap: float  # share of the reference's items that are in the list; 1 also where only a tie decided otherwise
    difference: float  # the largest, between the scores of an item that both have


@final
class Recheck:
    """Ranks some requests again."""

    def __init__(self, reference: Recommender, engine: str, share: float) -> None:
        self.engine = engine
        self._reference, self._share = reference, share

    @classmethod
    def open(
        cls, bundle: Bundle, share: float, verification: Verification, *, batching: Batching, threads: int | None
    ) -> "Recheck":
        """share: of the requests, above 0 and at most 1. Raises `OptionError` for a mode whose lists depend on what is
        drafted, and `BundleError` where the bundle has no engine of its own precision."""
        if not 0 < checks.instance(share, "share", (int, float), "such as 0.01") <= 1:
            raise OptionError(f"got {share!r} as the share of requests to rank again; expected above 0 and at most 1.")
        if verification.mode not in LOSSLESS:
            raise OptionError(
                f"{verification.mode} lists are not those of plain beam search: there is nothing to compare them with. "
                f"Verify {' or '.join(LOSSLESS)}, or leave the sample out."
            )
        engine = reference_engine(bundle)
        reference = Recommender.open(
            bundle, engine=EngineChoice(engine, threads=threads), drafting="none", verification=verification,
            batching=batching,
        )  # fmt: skip
        return cls(reference, engine, share)

    def agreements(
        self, requests: Sequence[Request], answers: dict[int, Recommendation | RequestFailure], k: int
    ) -> dict[int, Agreement]:
        """Of the chosen ones among a batch's answers, by the requests' numbers.

        Which are chosen depends on the user (or the history) alone. What the reference gives no numbers for agrees with
        nothing.
        """
        keys = np.array([requests[number].key for number in answers], np.uint64)
        drawn = uniform(mix(keys ^ SALT)) < self._share
        chosen = [
            (number, answer)
            for (number, answer), draw in zip(answers.items(), drawn, strict=True)
            if draw and isinstance(answer, Recommendation)
        ]
        again = self._reference.run([requests[number] for number, _ in chosen], k)
        return {
            number: self._compare(requests[number], answer, other, requests[number].k or k)
            for (number, answer), other in zip(chosen, again, strict=True)
        }

    def _compare(
        self, request: Request, answer: Recommendation, other: Recommendation | RequestFailure, k: int
    ) -> Agreement:
        if isinstance(other, RequestFailure):
            return Agreement(overlap=0.0, difference=0.0)
        ours, theirs = ({item.item: item.score for item in one.items} for one in (answer, other))
        shared, lacking = ours.keys() & theirs.keys(), [item for item in theirs if item not in ours]
        difference = max((abs(ours[item] - theirs[item]) for item in shared), default=0.0)
        if lacking and len(ours) == len(theirs):
            lacking = self._unexplained(request, k, lacking)
        return Agreement(1 - len(lacking) / len(theirs) if theirs else float(not ours), difference)

    def _unexplained(self, request: Request, k: int, lacking: list[str]) -> list[str]:
        """Items of the reference's list but for those below a prefix that is its K-th, and ties with the next one, so
        that either may stay."""
        if k + 1 > (self._reference.max_k or k + 1):
            return lacking
        _, rounds = self._reference.trace(replace(request, k=k + 1))
        frontiers = [each.verdict.frontier for each in rounds]
        tied = set[int]()
        for beam in (kind for one in frontiers for kind in (one.running, one.finished)):
            keys, nodes = beam.keys[0], beam.nodes[0]
            if len(keys) > k and np.isfinite(keys[k]) and keys[k - 1] - keys[k] < NEAR:
                tied.update(nodes[: k + 1][keys[: k + 1] - keys[k] < NEAR].tolist())
        trie, position = self._reference.trie, self._reference.catalog.position
        return [item for item in lacking if not tied & _path(trie, int(trie.leaf_of[position[item]]))]


def _path(trie: ItemTrie, node: int) -> set[int]:
    """A node and those above it."""
    found = set[int]()
    while node > 0:
        found.add(node)
        node = int(trie.parent[node])
    return found


def reference_engine(bundle: Bundle) -> str:
    """An engine that holds the exported weights as they are: one on the CPU, or the checkpoint itself.

    Raises `BundleError` where there is neither.
    """
    for name in bundle.engine_names():
        facts = bundle.engine_facts(name)
        if facts.device == "cpu" and is_exact(bundle, facts):
            return name
    if (bundle.path / "target" / "checkpoint").is_dir():
        return f"torch-cpu-{bundle.manifest.precision}"
    raise BundleError(
        f"{bundle.path} has neither an engine of its own precision on the CPU nor the target's checkpoint, to rank "
        f"lists again with. Build one with: specbeam build-engine {bundle.path} --precision {bundle.manifest.precision}"
    )


def is_exact(bundle: Bundle, facts: EngineFacts) -> bool:
    """Whether an engine's target has the precision that was exported."""
    return facts.precision == bundle.manifest.precision


def least_overlap(bundle: Bundle, engine: str) -> float:
    """The mean overlap that an engine's lists must have, unless it is said otherwise.

    Half precision rounds by more than `NEAR`: with the size of a call, near scores change places.
    """
    precision = EngineName.of(engine).precision  # of the torch backend
    if engine in bundle.engine_names():
        precision = bundle.engine_facts(engine).precision
    return 1.0 if precision == bundle.manifest.precision == "fp32" else ROUNDED
