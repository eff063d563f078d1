"""`generate` as a contestant: the time of its model's calls is taken beside that of the whole."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any, final

from ...catalog.trie import ItemTrie
from ...engines.torch import torch_threads
from ...runtime.types import Request
from ..generate import TrieGenerate
from .racers import Racer, Ranked, Spent, items_of


@final
class GenerateRacer(Racer):
    """A search by `generate`, with so many threads."""

    def __init__(self, generate: TrieGenerate, trie: ItemTrie, threads: int, *, exact: bool) -> None:
        """exact: whether its lists must be the others'."""
        self._generate, self._trie, self._threads, self._exact = generate, trie, threads, exact
        self._calls: list[float] = []  # seconds of each of the model's
        self._total, self._requests, self._rows, self._started = 0.0, 0, 0, 0.0

    def serve(self, group: Sequence[Request], k: int) -> list[list[tuple[int, float]]]:
        model, self._calls, self._requests = self._generate.model, [], len(group)
        hooks = model.register_forward_pre_hook(self._begin), model.register_forward_hook(self._end)
        start = perf_counter()
        try:
            with torch_threads(self._threads):
                return self._generate.batch([request.prompt for request in group], k)
        finally:
            self._total = perf_counter() - start
            for hook in hooks:
                hook.remove()

    def _begin(self, model: Any, arguments: Any) -> None:
        self._started = perf_counter()

    def _end(self, model: Any, arguments: Any, output: Any) -> None:
        self._calls.append(perf_counter() - self._started)
        self._rows = len(output.logits)

    def lists(self, answer: object, k: int) -> list[Ranked] | None:
        assert isinstance(answer, list)
        return [items_of(self._trie, each, k) for each in answer] if self._exact else None

    @property
    def spent(self) -> Spent:
        """On a GPU calls end when they are queued: what they take is waited for elsewhere."""
        prompt, target = self._calls[0], sum(self._calls[1:])
        nodes = self._rows * (len(self._calls) - 1)
        return Spent(len(self._calls) * self._requests, 0, nodes, prompt, target, 0.0, 0.0, self._total)
