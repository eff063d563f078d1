"""How requests are searched: what a flight of them takes is put together here."""

from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import final

import numpy as np

from ..catalog.errors import OptionError
from .drafting.guesses import Guesses, MixedGuesses, ModelGuesses
from .drafting.retrieval import PoolGuesses
from .flight import Assembled, Boarding, Flight, compiled, keys, seeds
from .loaded import Loaded
from .modes import drafter_of, scoring_of, verifier_of
from .options import Verification
from .planning.policy import Planning
from .room import Room
from .search.call_room import CallRoom
from .search.evaluator import TreeEvaluator
from .search.filters import FilterCompiler
from .search.nodes import EvaluatedNodes
from .search.noise import Noise, prefix_hashes
from .search.prefix import SharedPrefix
from .search.trie_view import TrieView
from .stats import DecodeStats
from .types import Recommendation, Request, Round


@final
class BatchSearch:
    """How batches are searched. What all of them share is kept here; safe to share between threads."""

    def __init__(
        self, loaded: Loaded, verification: Verification, filters: FilterCompiler, *, reuse: bool,
        room: Room | None = None,
    ) -> None:  # fmt: skip
        """room: what searches may take of memory; None: what they do."""
        self._loaded, self._filters, self._reuse, self.room = loaded, filters, reuse, room
        self._verify_by(verification)
        self._hashes = prefix_hashes(loaded.trie)
        beginning = np.array(loaded.prompts.spec.prefix_ids, np.int64)
        shared = partial(SharedPrefix, tokens=beginning, limited=room is not None)
        self._target, self._draft = shared(loaded.target), None if loaded.draft is None else shared(loaded.draft)

    def over(self, loaded: Loaded, filters: FilterCompiler, room: Room | None) -> "BatchSearch":
        """The same engines, and what they have cached of all prompts, over another catalog of theirs."""
        other = copy(self)
        other.room = room
        other._loaded, other._filters, other._hashes = loaded, filters, prefix_hashes(loaded.trie)
        return other

    def verifying(self, verification: Verification, room: Room | None) -> "BatchSearch":
        """The same, verified otherwise. Raises `OptionError` where these engines do not score for it."""
        other = copy(self)
        other.room = room
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
        with stats.timed("total"):
            flight = self.flight(requests, k, planning, stats, rounds)
            while flight.running:
                flight.round()
            flight.end()
            return flight.answers(np.arange(len(requests)))

    def flight(
        self, requests: Sequence[Request], k: int, planning: Planning, stats: DecodeStats,
        rounds: list[Round] | None = None,
    ) -> Flight:  # fmt: skip
        """Requests about to begin; k: of those that ask for no number of their own."""
        boarding = Boarding(self._loaded, self._filters, self._verification.seed or 0, self._sampled, self._reuse)
        return Flight(boarding, self._assembled(requests, stats), requests, k, planning, stats, rounds)

    def _assembled(self, requests: Sequence[Request], stats: DecodeStats) -> Assembled:
        """What one flight takes, in the order in which one needs the other."""
        prompts = [request.prompt for request in requests]
        filters = compiled(self._filters, requests)
        view = TrieView(self._loaded.trie, self.scoring.kind, filters)
        noise = Noise(seeds(requests, self._verification.seed or 0), keys(requests), self._hashes)
        known = EvaluatedNodes(view, self.scoring, noise if self._sampled else None)  # draft and target perturb alike
        room = None if self.room is None else self.room.of_batch()
        target = TreeEvaluator(self._target, view, known, prompts, stats, "target", room)
        believed = EvaluatedNodes(view, self.scoring)
        guesses = self._guesses(believed, view, requests, stats, room)
        drafter = drafter_of(self._verification, guesses, view, noise, len(requests))
        verifier = verifier_of(self._verification, view, noise)
        return Assembled(filters, view, noise, believed, target, drafter, verifier)

    def _guesses(
        self, believed: EvaluatedNodes, view: TrieView, requests: Sequence[Request], stats: DecodeStats,
        room: CallRoom | None,
    ) -> Guesses | None:  # fmt: skip
        """What the batch's drafts are guessed by; believed: where the draft's beliefs are kept."""
        model = None
        if self._draft is not None:
            prompts = [request.prompt for request in requests]
            model = ModelGuesses(TreeEvaluator(self._draft, view, believed, prompts, stats, "draft", room))
        if self._loaded.pool is None:
            return model
        pool = PoolGuesses(self._loaded.pool, view, self.scoring, requests, stats)
        return pool if model is None else MixedGuesses(model, pool)

    @property
    def _sampled(self) -> bool:
        return self._verification.mode == "sampled"
