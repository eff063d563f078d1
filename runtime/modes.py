"""What a mode of verification means for one batch: how children are scored, who drafts, who verifies."""

from .drafting.drafter import BeamDrafter, Drafter, NoDrafter, SampledDrafter
from .drafting.guesses import Guesses
from .options import Verification
from .search.noise import Noise
from .search.relaxed import RelaxedVerifier
from .search.scoring import Scoring
from .search.trie_view import TrieView
from .search.verify import StrictVerifier, TolerantVerifier, Verifier


def scoring_of(verification: Verification) -> Scoring:
    """How children are scored."""
    if verification.mode == "sampled":
        return Scoring("constrained", _default(verification.temperature, 1.0))
    return Scoring(verification.scoring or "full")


def drafter_of(
    verification: Verification, guesses: Guesses | None, view: TrieView, noise: Noise, batch: int
) -> Drafter:
    """Who drafts by these guesses; None: nobody."""
    if guesses is None:
        return NoDrafter(verification.mode, batch)
    if verification.mode == "relaxed":
        return SampledDrafter(guesses, view, noise, _default(verification.temperature, 1.0))
    return BeamDrafter(verification.mode, guesses, view)


def verifier_of(verification: Verification, view: TrieView, noise: Noise) -> Verifier:
    """Who verifies."""
    if verification.mode == "relaxed":
        return RelaxedVerifier(view, noise, _default(verification.temperature, 1.0))
    if verification.mode == "tolerant":
        return TolerantVerifier(view, _default(verification.slack, 0.0))
    return StrictVerifier(verification.mode, view)


def _default(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
