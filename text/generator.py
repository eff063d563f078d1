"""The public face: prompts in, text out."""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args

import numpy as np

from ..catalog import checks
from ..catalog.errors import OptionError, PromptError
from ..catalog.identifiers import adds_special
from ..engines.base import Engine
from ..engines.bundle.texts import TextBundle, TextPrompt
from ..engines.registry import (
    load_engine,
    name_and_precision,
)
from ..pools.texts.branches import TextDrafting
from ..pools.texts.live import LivePool
from ..pools.texts.pool import TextPool
from ..pools.texts.tokenizer import load
from ..runtime.answers import answered, failure
from ..runtime.arguments import checked_engine
from ..runtime.options import Batching, EngineChoice
from ..runtime.types import RequestFailure
from .choices import batch_of_texts, fitting_pool, planning_for
from .draft import NoDrafter, PoolDrafter, TextDrafter
from .ends import Ends
from .planning import TextPlanning
from .session import TextSession
from .stats import GenerationStats
from .types import Finish, Int64, Text, TextRequest, TextStats, TextVerification

MAX_NEW_TOKENS = 1024
BATCH_SIZE = 8
DRAFTING = TextDrafting()


class TextGenerator:
    """Text by greedy decoding (or what relaxed verification lets pass), drafted from pools.

    Safe to share between threads: every call works on caches of its own. `stats` sums what all calls did.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer_file: Path,
        prompt: TextPrompt,
        *,
        context: int,
        end_tokens: Sequence[int],
        drafter: TextDrafter,
        planning: TextPlanning,
        pool: TextPool | None = None,
        verification: TextVerification | None = None,
        stop: Iterable[str] = (),
        batch_size: int = BATCH_SIZE,
        name: str = "given",
    ) -> None:
        """context: positions of the model; name: how errors name the engine; see `open`."""
        self.batch_size = checks.whole_number(batch_size, "batch_size")
        self.verification, self.drafter = _checked(verification), drafter
        self.stats = GenerationStats()
        self._engine, self._around, self._context, self._pool = engine, prompt, context, pool
        self._planning, self._name = planning, name
        self._tokenizer = load(tokenizer_file)
        stop = self._checked_stops(stop)
        self._ends = Ends(end_tokens, stop, self.decode)
        self._lock = Lock()

    @classmethod
    def open(
        cls,
        bundle: str | Path | TextBundle,
        *,
        engine: EngineChoice | str | None = None,
        pool: str | Path | TextPool | None = None,
        drafting: TextDrafting | None = DRAFTING,
        live: bool = True,
        speculation: Literal["auto", "fixed"] | None = None,
        verification: TextVerification | None = None,
        stop: Iterable[str] = (),
        batching: Batching | int | None = None,
    ) -> "TextGenerator":
        """Open a text bundle's engine.

        engine: which, and with how many threads (a name alone: with all processors; default: the bundle's default
        engine). batching: prompts in one call. pool: of earlier texts, made by `specbeam build-pool` with this bundle's
        tokenizer. drafting: how much is drafted; None: nothing, which is plain greedy decoding. live: what is written
        drafts for what comes after it. speculation: "auto" sends as much of a draft as pays, by the engine's measured
        latency and what has passed; "fixed" all of it. Default: auto with strict verification; relaxed texts depend on
        what is drafted, and would on the machine. stop: strings that end a text. Raises `BundleError`, `EngineError`,
        `PoolError` or `OptionError` with the remedy.
        """
        choice, live, verification = checked_engine(engine), checks.flag(live, "live"), _checked(verification)
        batch_size = batch_of_texts(batching)
        checks.instance(drafting, "drafting", (TextDrafting, type(None)), "such as TextDrafting(depth=8), or None")
        stop = checks.listed(stop, "stop", "strings")
        bundle = bundle if isinstance(bundle, TextBundle) else TextBundle.open(bundle)
        manifest = bundle.manifest
        opened = None if pool is None else fitting_pool(pool, bundle, drafting)
        name, threads = choice.of(bundle)
        planning = planning_for(bundle, name, speculation, verification)
        loaded = load_engine(bundle, "target", name, threads=threads)
        drafter: TextDrafter = NoDrafter()
        if drafting is not None:
            drafter = PoolDrafter(opened, LivePool(reach=drafting.reach) if live else None, drafting)
        return cls(
            loaded, bundle.tokenizer_file(), manifest.prompt, context=manifest.target.context,
            end_tokens=manifest.end_tokens, drafter=drafter, planning=planning, pool=opened, verification=verification,
            stop=stop, batch_size=batch_size, name=name_and_precision(bundle, "target", name),
        )  # fmt: skip

    def generate(
        self,
        prompts: Iterable[str],
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        ids: Iterable[str | int | None] | None = None,
        groups: Iterable[str | int | None] | None = None,
    ) -> list[Text]:
        """The text behind every prompt, in the prompts' order.

        ids: whose they are, by which the pool knows their groups; groups: named directly, where not None. Raises
        `PromptError` for a prompt that cannot be used, and `RequestError`, once all others are done, for one that the
        engine gives no numbers for.
        """
        each = checks.listed(prompts, "prompts", "prompts")
        names, of_groups = _as_many(each, ids, "ids"), _as_many(each, groups, "groups")
        requests = [
            self.encode(prompt, max_new_tokens=max_new_tokens, id=name, group=group)
            for prompt, name, group in zip(each, names, of_groups, strict=True)
        ]
        return answered(self.run(requests))

    def encode(
        self,
        prompt: str,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        id: str | int | None = None,
        group: str | int | None = None,
    ) -> TextRequest:
        """One prompt as token ids. Raises `PromptError` where it does not fit, or its group is in no pool."""
        max_new_tokens = checks.whole_number(max_new_tokens, "max_new_tokens")
        text = f"{self._around.prefix}{checks.text(prompt, 'prompt')}{self._around.suffix}"

        def ids(special: bool) -> list[int]:
            return list(self._tokenizer.encode(text, add_special_tokens=special).ids)

        try:
            tokens = ids(self._around.special and adds_special(ids))
        except TypeError:  # the library's, for what is no UTF-8
            raise PromptError(f"the prompt {prompt[:40]!r} holds half a surrogate pair; expected text.") from None
        if not tokens:
            raise PromptError("the prompt is empty; expected some text.")
        if max(tokens) >= self._engine.columns:
            raise PromptError(
                f"the tokenizer makes token {max(tokens)} of the prompt; the model has {self._engine.columns}. They "
                "are of different models: export again."
            )
        room = self._context - len(tokens)
        if room < 1:
            raise PromptError(
                f"the prompt has {len(tokens)} tokens, the model's context {self._context} positions; expected at "
                f"most {self._context - 1}, which leave room for an answer. Shorten it."
            )
        return TextRequest(np.array(tokens, np.int64), self._group(id, group), min(max_new_tokens, room))

    def run(self, requests: Iterable[TextRequest]) -> list[Text | RequestFailure]:
        """As `generate`, for encoded requests: each one's text or failure, in their order."""
        results = {number: result for batch in self.batches(requests) for number, result in batch.items()}
        return [results[number] for number in range(len(results))]

    def batches(self, requests: Iterable[TextRequest]) -> Iterator[dict[int, Text | RequestFailure]]:
        """As `run`, batch by batch, by the requests' numbers, in the order in which they end.

        Prompts of about the same length share a batch.
        """
        requests = checks.listed(requests, "requests", "requests")
        for request in requests:
            checks.instance(request, "a request", TextRequest, "what encode(prompt) returns")
        order = np.argsort([len(request.prompt) for request in requests], kind="stable").tolist()
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            results = self._batch([requests[i] for i in chosen])
            yield {
                chosen[i]: failure(chosen[i], None, self._name) if text is None else text for i, text in results.items()
            }

    def afresh(self) -> "TextGenerator":
        """The same engine before any text was written, with statistics of its own; what it plans by is shared."""
        other = copy(self)
        other.stats, other.drafter, other._lock = GenerationStats(), self.drafter.afresh(), Lock()
        return other

    def decode(self, tokens: Int64) -> str:
        """Tokens as text, without the tokenizer's special ones."""
        return str(self._tokenizer.decode(tokens.tolist(), skip_special_tokens=True))

    def learn(self, text: str, finish: Finish, *, id: str | int | None = None, group: str | int | None = None) -> None:
        """Let a text that was written earlier draft for those to come."""
        tokens = self._tokenizer.encode(checks.text(text, "text"), add_special_tokens=False).ids
        if checks.choice(finish, "finish", get_args(Finish)) == "end":
            tokens += self._ends.tokens[:1].tolist()
        self.drafter.learn(np.array(tokens, np.int64), self._group(id, group))

    def _checked_stops(self, stop: Iterable[str]) -> list[str]:
        """All of them. Raises `OptionError` for strings that no text can hold."""
        each = [checks.text(string, "a stop string") for string in checks.listed(stop, "stop", "strings")]
        if not all(each):
            raise OptionError("got an empty stop string; expected text that ends what is written.")
        for string in each:
            token = self._tokenizer.token_to_id(string)
            if token is not None and not self.decode(np.array([token])):
                raise OptionError(
                    f"got the stop string {string!r}, a special token, which is not part of texts. The bundle's end "
                    "tokens end them anyway; for another one, set eos_token_id in generation_config.json and export."
                )
        return each

    def _batch(self, requests: Sequence[TextRequest]) -> dict[int, Text | None]:
        """The texts in the order in which they end; None where the engine's scores are no numbers."""
        stats, texts = GenerationStats(), dict[int, Text | None]()

        def done(number: int, tokens: Int64, finish: Finish, cost: TextStats) -> None:
            text = Text(self._ends.cut(self.decode(tokens)), tuple(tokens.tolist()), finish, cost)
            stats.count(text)
            texts[number] = text

        def failed(number: int) -> None:
            texts[number] = None

        with stats.timed("total"):
            TextSession(self._engine, requests, self.drafter, self.verification, self._ends, self._planning, stats).run(
                done, failed
            )
        with self._lock:
            self.stats.merge(stats)
        return texts

    def _group(self, id: str | int | None, group: str | int | None) -> str | None:
        """Whose pool drafts for a request."""
        id = None if id is None else checks.as_id(id, "id")
        group = None if group is None else checks.as_id(group, "group")
        if group is None:
            return None if self._pool is None or id is None else self._pool.group_of(id)
        if self._pool is not None and group not in self._pool.groups:
            known = ", ".join(self._pool.groups[:10]) or "none"
            raise PromptError(f"the pool has no group {group!r}; it has: {known}. Leave it out for everybody's pool.")
        return group


def _checked(verification: TextVerification | None) -> TextVerification:
    """Which tokens pass; None: those of greedy decoding."""
    verification = TextVerification() if verification is None else verification
    return checks.instance(verification, "verification", TextVerification, "such as TextVerification('relaxed')")


def _as_many(prompts: Sequence[str], values: Iterable[Any] | None, name: str) -> list[Any]:
    """One value for every prompt: None, or what was given."""
    given = [None] * len(prompts) if values is None else checks.listed(values, name, name)
    if len(given) != len(prompts):
        raise OptionError(f"got {len(given)} {name} for {len(prompts)} prompts; expected as many.")
    return given
