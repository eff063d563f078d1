"""One batch of requests on its way through the search: what it takes is put together here, and what was found."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import final

import numpy as np

from ..catalog.errors import OptionError
from .answers import ranked_items, recommendation
from .drafting.drafter import Drafter
from .drafting.guesses import Guesses, MixedGuesses, ModelGuesses
from .drafting.retrieval import PoolGuesses
from .loaded import Loaded
from .modes import drafter_of, scoring_of, verifier_of
from .options import Verification
from .planning.policy import Planning
from .search.evaluator import TreeEvaluator
from .search.filters import FilterCompiler
from .search.nodes import EvaluatedNodes
from .search.noise import SAMPLE, Noise, prefix_hashes
from .search.prefix import SharedPrefix
from .search.trie_view import TrieView
from .search.verify import Verifier
from .session import Session
from .stats import DecodeStats
from .types import CompiledFilter, Frontier, Int64, Recommendation, Request, RequestStats, Round


@dataclass(frozen=True, eq=False)
class Assembled:
    """The collaborators of one batch."""

    filters: list[CompiledFilter | None]  # of every request
    view: TrieView
    noise: Noise
    believed: EvaluatedNodes  # by the draft
    target: TreeEvaluator
    drafter: Drafter
    verifier: Verifier


@final
class BatchSearch:
    """How batches are searched. What all of them share is kept here; safe to share between threads."""

    def __init__(
        self, loaded: Loaded, verification: Verification, filters: FilterCompiler, *, reuse: bool
    ) -> None:  # fmt: skip
        self._loaded, self._filters, self._reuse = loaded, filters, reuse
        self._verify_by(verification)
        self._hashes = prefix_hashes(loaded.trie)
        beginning = np.array(loaded.prompts.spec.prefix_ids, np.int64)
        self._target = SharedPrefix(loaded.target, beginning)
        self._draft = None if loaded.draft is None else SharedPrefix(loaded.draft, beginning)

    def over(self, loaded: Loaded, filters: FilterCompiler) -> "BatchSearch":
        """The same engines, and what they have cached of all prompts, over another catalog of theirs."""
        other = copy(self)
        other._loaded, other._filters, other._hashes = loaded, filters, prefix_hashes(loaded.trie)
        return other

    def verifying(self, verification: Verification) -> "BatchSearch":
        """The same, verified otherwise. Raises `OptionError` where these engines do not score for it."""
        other = copy(self)
        other._verify_by(verification)
        return other

    def _verify_by(self, verification: Verification) -> None:
        self.scoring, self._verification = scoring_of(verification), verification
        if self._loaded.scoring != "full" and self.scoring.kind == "full":
            raise OptionError(
                f"got engines that were loaded for {self._loaded.scoring} scoring, which know the catalog's columns "
                "alone; full scoring takes the whole vocabulary's. Load them for full scoring, which serves both."
            )

    def run(
        self, requests: list[Request], k: int, planning: Planning, stats: DecodeStats,
        rounds: list[Round] | None = None,
    ) -> list[Recommendation | None]:  # fmt: skip
        """Every request's recommendation; None where the target's scores were no numbers."""
        parts = self._assembled(requests, stats)
        session = Session(
            parts.target, parts.drafter, parts.verifier, planning, parts.view, stats, reuse=self._reuse, rounds=rounds
        )
        wanted = np.array([request.k or k for request in requests])
        frontier = session.run(np.minimum(wanted, parts.view.leaves(len(requests))), self._roots(parts, len(requests)))
        _count(parts, stats, len(requests))
        return self._answers(parts, requests, wanted, frontier)

    def _assembled(self, requests: list[Request], stats: DecodeStats) -> Assembled:
        """What one batch takes, in the order in which one needs the other."""
        prompts = [request.prompt for request in requests]
        # Masks of one request only are made for its batch: those of all that wait would be large.
        filters = [self._filters.without(request.filter, request.excluded) for request in requests]
        view = TrieView(self._loaded.trie, self.scoring.kind, [None if f is None else f.live for f in filters])
        keys = np.array([request.key for request in requests], np.uint64)
        noise = Noise(self._verification.seed or 0, keys, self._hashes)
        known = EvaluatedNodes(view, self.scoring, noise if self._sampled else None)  # draft and target perturb alike
        target = TreeEvaluator(self._target, view, known, prompts, stats, "target")
        believed = EvaluatedNodes(view, self.scoring)
        guesses = self._guesses(believed, view, requests, stats)
        drafter = drafter_of(self._verification, guesses, view, noise, len(requests))
        verifier = verifier_of(self._verification, view, noise)
        return Assembled(filters, view, noise, believed, target, drafter, verifier)

    def _guesses(
        self, believed: EvaluatedNodes, view: TrieView, requests: Sequence[Request], stats: DecodeStats
    ) -> Guesses | None:
        """What the batch's drafts are guessed by; believed: where the draft's beliefs are kept."""
        model = None
        if self._draft is not None:
            prompts = [request.prompt for request in requests]
            model = ModelGuesses(TreeEvaluator(self._draft, view, believed, prompts, stats, "draft"))
        if self._loaded.pool is None:
            return model
        pool = PoolGuesses(self._loaded.pool, view, self.scoring, requests, stats)
        return pool if model is None else MixedGuesses(model, pool)

    @property
    def _sampled(self) -> bool:
        return self._verification.mode == "sampled"

    def _roots(self, parts: Assembled, batch: int) -> np.ndarray:
        """[B] what the roots are ranked by."""
        everyone = np.arange(batch)
        return parts.noise.gumbel(everyone, everyone * 0, SAMPLE) if self._sampled else np.zeros(batch)

    def _answers(
        self, parts: Assembled, requests: list[Request], wanted: Int64, frontier: Frontier
    ) -> list[Recommendation | None]:
        target, catalog = parts.target, self._loaded.catalog
        counts = zip(target.calls.tolist(), parts.drafter.calls.tolist(), target.evaluated.tolist(), strict=True)
        found = ranked_items(self._loaded.trie, frontier.finished, wanted, parts.filters)
        each = zip(requests, found, wanted.tolist(), parts.filters, counts, strict=True)
        answers: list[Recommendation | None] = [
            recommendation(catalog, request, ranked, most, allowed, RequestStats(*cost))
            for request, ranked, most, allowed, cost in each
        ]
        for number in target.nodes.failed.tolist():
            answers[number] = None
        return answers


def _count(parts: Assembled, stats: DecodeStats, requests: int) -> None:
    stats.requests += requests
    stats.target_calls += int(parts.target.calls.sum())
    stats.draft_calls += int(parts.drafter.calls.sum())
    stats.nodes_evaluated += int(parts.target.evaluated.sum())
    stats.failed_drafts += len(parts.believed.failed)
