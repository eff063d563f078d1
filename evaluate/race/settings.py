"""What a race measures."""

from typing import Final, Literal, get_args

from ...catalog import checks
from ...catalog.checks import Checked
from ...catalog.errors import OptionError
from ...runtime.types import DraftShape, ScoringKind

Name = Literal["generate", "generate-arrays", "beams", "plain", "model", "retrieval", "both", "auto"]
CONTESTANTS: Final[tuple[Name, ...]] = get_args(Name)
FLOOR: Final = "floor"  # the bare calls of the plain loop
TOLD: Final[dict[str, str]] = {
    "generate": "transformers' beam search on the checkpoint, the trie by prefix_allowed_tokens_fn",
    "generate-arrays": "the same, the trie as arrays: one mask for all beams at once",
    "beams": "beam search with a row a beam and caches reordered after every call, on the same engine",
    "plain": "our loop without drafting",
    "model": "drafts of a fixed shape by the draft model",
    "retrieval": "drafts of a fixed shape by the pool",
    "both": "drafts of a fixed shape by both",
    "auto": "drafts what pays: the default",
    FLOOR: "no contestant: the plain loop's calls alone, recorded and repeated, without the loop",
}


class RaceSettings(Checked, frozen=True):
    """Raises `OptionError` for what cannot be measured."""

    top_k: tuple[int, ...] = (1, 5, 10, 20, 50)
    batches: tuple[int, ...] = (1, 8, 32)
    contestants: tuple[Name, ...] | None = None  # None: all that there is something for
    rounds: int = 20  # turns of every contestant in a cell, a batch each
    seconds: float = 60.0  # of a cell at most; slow contestants get fewer turns
    users: int = 256  # requests at most, the files' first
    oracle: bool = False  # whether the floor is measured
    shape: DraftShape = DraftShape()  # of the drafters'
    engine: str | None = None
    threads: int | None = None
    pool: str | None = None
    scoring: ScoringKind | None = None  # None: the bundle's
    seed: int = 0  # of the order of turns

    def __post_init__(self) -> None:
        super().__post_init__()
        lists = {"K": self.top_k, "batch sizes": self.batches, "contestants": self.contestants}
        for name, values in lists.items():
            if values is not None and (not values or len(set(values)) != len(values)):
                raise OptionError(f"got the {name} {values}; expected at least one, and each once.")
        most = checks.LARGEST
        checks.within(self, 1, top_k=most, batches=most, rounds=most, users=most, threads=checks.MOST_THREADS)
        checks.within(self, 0, seed=checks.LARGEST_SEED)
        if not 0 < self.seconds < float("inf"):
            raise OptionError(f"got {self.seconds:g} seconds a cell; expected more than 0.")
