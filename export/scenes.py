"""Token trees at random, packed behind prompts, that an exported graph and its model are asked about."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

TREE, FEW = 24, 8  # tokens of a prompt with a tree behind it
LONG, LONGEST = 256, 4608  # tokens of a long prompt: at least, and whatever windows a model has
ONE, BATCH, LONG_ONE, FAR = "a tree", "a batch of trees", "a long sequence", "the end of the context"


@dataclass(frozen=True)
class Scene:
    """B token trees in T slots each. Parents come before children; the rest is padding."""

    tokens: NDArray[np.int64]  # [B, T]
    parents: NDArray[np.int64]  # [B, T] slot of the parent; -1 at a root, -2 in padding
    depths: NDArray[np.int64]  # [B, T]
    sees: NDArray[np.bool_]  # [B, T, T] slot i sees slot j: itself and its ancestors
    prompts: NDArray[np.int64]  # [B]: tokens before the first branch
    start: int = 0  # position of the roots

    @property
    def positions(self) -> NDArray[np.int64]:
        """[B, T]."""
        return self.depths + self.start

    @property
    def real(self) -> NDArray[np.bool_]:
        """[B, T]: slots that are not padding."""
        return self.parents > -2

    def path(self, request: int, slot: int) -> list[int]:
        """The slots from the root to `slot`, both included."""
        path = [slot]
        while (parent := int(self.parents[request, path[-1]])) >= 0:
            path.append(parent)
        return path[::-1]

    def leaves(self, request: int) -> list[int]:
        """Slots that are nobody's parent."""
        inner = set(self.parents[request].tolist())
        return [slot for slot in np.flatnonzero(self.real[request]).tolist() if slot not in inner]


def scenes_for(
    rng: np.random.Generator, vocabulary: NDArray[np.int64], rows: int, context: int, window: int
) -> dict[str, Scene]:
    """What a model is asked about, by what it is there to find.

    vocabulary: the catalog's tokens; rows: of the head; window: the longest that is shorter than the context, or 0.
    """
    longest = max(1, min(TREE, context - 6))
    past_windows = max(1, min(max(LONG, window + TREE), LONGEST, context - 6))
    far = random_scene(rng, np.array([min(FEW, longest)]), vocabulary, rows, context, branches=5)
    return {
        ONE: random_scene(rng, np.array([longest]), vocabulary, rows, context),
        BATCH: random_scene(rng, longest - rng.permutation(3) * (longest // 4), vocabulary, rows, context),
        LONG_ONE: random_scene(rng, np.array([past_windows]), vocabulary, rows, context, branches=4),
        FAR: replace(far, start=max(0, context - 1 - int(far.depths.max()))),
    }


def random_scene(
    rng: np.random.Generator,
    prompts: NDArray[np.int64],
    vocabulary: NDArray[np.int64],
    rows: int,
    context: int,
    branches: int = 10,
) -> Scene:
    """Prompts of these lengths, each with a branching tree behind it, spread over padded slots."""
    batch, width = len(prompts), int(prompts.max()) + branches + 5
    tokens = rng.choice(vocabulary, (batch, width))
    anything = rng.random((batch, width)) < 0.3  # also tokens that are not the catalog's
    tokens[anything] = rng.integers(0, rows, anything.sum())
    parents = np.full((batch, width), -2, np.int64)
    depths = np.zeros((batch, width), np.int64)
    sees = np.tile(np.eye(width, dtype=bool), (batch, 1, 1))
    for b, prompt in enumerate(prompts):
        slots = np.sort(rng.permutation(width)[: prompt + branches])
        for i, slot in enumerate(slots):
            if i == 0:
                parents[b, slot] = -1
                continue
            deep = depths[b, slots[:i]] >= min(prompt + 3, context - 1)
            open_slots = slots[max(prompt - 1, 0) : i][~deep[max(prompt - 1, 0) :]]
            parent = slots[i - 1] if i < prompt else rng.choice(open_slots)
            parents[b, slot], depths[b, slot] = parent, depths[b, parent] + 1
            sees[b, slot] |= sees[b, parent]
    return Scene(tokens.astype(np.int64), parents, depths, sees, prompts)
