"""The public face: prompts in, text out."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np

from ..catalog.errors import OptionError, PoolError, PromptError
from ..catalog.tokens import adds_special
from ..engines.base import Engine
from ..engines.registry import available_threads, default_engine, load_engine
from ..engines.text_bundle import TextBundle, TextPrompt
from ..pools.branches import Drafting
from ..pools.live import LivePool
from ..pools.text_pool import TextPool
from ..pools.tokenizer import load
from ..runtime.costs import CallCosts
from .draft import NoDrafter, PoolDrafter, TextDrafter
from .ends import Ends
from .planning import AllOfIt, ByCost, TextPlanning
from .session import TextSession
from .stats import GenerationStats
from .types import Finish, Int64, Text, TextRequest, TextStats, TextVerification

MAX_NEW_TOKENS = 1024
BATCH_SIZE = 8
DRAFTING = Drafting()


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
        stop: Sequence[str] = (),
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """context: positions of the model; see `open`."""
        if batch_size < 1:
            raise OptionError(f"got a batch size of {batch_size}; expected at least 1.")
        self.verification, self.drafter, self.batch_size = verification or TextVerification(), drafter, batch_size
        self.stats = GenerationStats()
        self._engine, self._around, self._context, self._pool = engine, prompt, context, pool
        self._planning = planning
        self._tokenizer = load(tokenizer_file)
        self._check_stops(stop)
        self._ends = Ends(end_tokens, stop, self.decode)
        self._lock = Lock()

    @classmethod
    def open(
        cls,
        bundle: str | Path | TextBundle,
        *,
        engine: str | None = None,
        pool: str | Path | TextPool | None = None,
        drafting: Drafting | None = DRAFTING,
        live: bool = True,
        speculation: Literal["auto", "fixed"] | None = None,
        verification: TextVerification | None = None,
        stop: Sequence[str] = (),
        batch_size: int = BATCH_SIZE,
        threads: int | None = None,
    ) -> "TextGenerator":
        """Open a text bundle's engine.

        engine: a name that `specbeam inspect` lists (default: the only one built). pool: of earlier texts, made by
        `specbeam build-pool` with this bundle's tokenizer. drafting: how much is drafted; None: nothing, which is
        plain greedy decoding. live: what is written drafts for what comes after it. speculation: "auto"
        sends as much of a draft as pays, by the engine's measured latency and what has passed; "fixed" all of it.
        Default: auto with strict verification; relaxed texts depend on what is drafted, and would on the machine.
        stop: strings that end a text. Raises `BundleError`, `EngineError`, `PoolError` or `OptionError` with the
        remedy.
        """
        bundle = bundle if isinstance(bundle, TextBundle) else TextBundle.open(bundle)
        manifest = bundle.manifest
        if threads is not None and threads < 1:
            raise OptionError(f"got {threads} threads; expected at least 1.")
        opened = None if pool is None else _pool(pool, bundle, drafting)
        verification, engine = verification or TextVerification(), engine or default_engine(bundle)
        planning = _planning(bundle, engine, speculation, verification)
        loaded = load_engine(bundle, "target", engine, threads=threads or available_threads())
        drafter: TextDrafter = NoDrafter()
        if drafting is not None:
            drafter = PoolDrafter(opened, LivePool(reach=drafting.reach) if live else None, drafting)
        return cls(
            loaded, bundle.tokenizer_file(), manifest.prompt, context=manifest.target.context,
            end_tokens=manifest.end_tokens, drafter=drafter, planning=planning, pool=opened, verification=verification,
            stop=stop, batch_size=batch_size,
        )  # fmt: skip

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        ids: Sequence[str] | None = None,
        groups: Sequence[str | None] | None = None,
    ) -> list[Text]:
        """The text behind every prompt, in the prompts' order.

        ids: whose they are, by which the pool knows their groups; groups: named directly, where not None. Raises
        `PromptError` for a prompt that cannot be used.
        """
        if isinstance(prompts, str):
            raise OptionError(f"got the text {prompts[:40]!r}; expected a list of prompts. Put it into a list.")
        for name, given in (("ids", ids), ("groups", groups)):
            if given is not None and len(given) != len(prompts):
                raise OptionError(f"got {len(given)} {name} for {len(prompts)} prompts; expected as many.")
        requests = [
            self.encode(
                prompt, max_new_tokens=max_new_tokens, id=None if ids is None else ids[number],
                group=None if groups is None else groups[number],
            )
            for number, prompt in enumerate(prompts)
        ]  # fmt: skip
        texts: dict[int, Text] = dict(self.run(requests))
        return [texts[number] for number in range(len(requests))]

    def encode(
        self, prompt: str, *, max_new_tokens: int = MAX_NEW_TOKENS, id: str | None = None, group: str | None = None
    ) -> TextRequest:
        """One prompt as token ids. Raises `PromptError` where it does not fit, or its group is in no pool."""
        if max_new_tokens < 1:
            raise OptionError(f"got max-new-tokens {max_new_tokens}; expected at least 1.")
        text = f"{self._around.prefix}{prompt}{self._around.suffix}"

        def ids(special: bool) -> list[int]:
            return list(self._tokenizer.encode(text, add_special_tokens=special).ids)

        try:
            tokens = ids(self._around.special and adds_special(ids))
        except TypeError:  # the library's, for what is no UTF-8
            raise PromptError(f"the prompt {prompt[:40]!r} holds half a surrogate pair; expected text.") from None
        if not tokens:
            raise PromptError("the prompt is empty; expected some text.")
        room = self._context - len(tokens)
        if room < 1:
            raise PromptError(
                f"the prompt has {len(tokens)} tokens, the model's context {self._context} positions; expected at "
                f"most {self._context - 1}, which leave room for an answer. Shorten it."
            )
        return TextRequest(np.array(tokens, np.int64), self._group(id, group), min(max_new_tokens, room))

    def run(self, requests: Sequence[TextRequest]) -> Iterator[tuple[int, Text]]:
        """Write a text behind every prompt; yields (number of the request, text), batch by batch.

        Prompts of about the same length share a batch.
        """
        order = np.argsort([len(request.prompt) for request in requests], kind="stable").tolist()
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            for number, text in self._batch([requests[i] for i in chosen]):
                yield chosen[number], text

    def decode(self, tokens: Int64) -> str:
        """Tokens as text, without the tokenizer's special ones."""
        return str(self._tokenizer.decode(tokens.tolist(), skip_special_tokens=True))

    def learn(self, text: str, finish: Finish, *, id: str | None = None, group: str | None = None) -> None:
        """Let a text that was written earlier draft for those to come."""
        tokens = self._tokenizer.encode(text, add_special_tokens=False).ids
        if finish == "end":
            tokens += self._ends.tokens[:1].tolist()
        self.drafter.learn(np.array(tokens, np.int64), self._group(id, group))

    def _check_stops(self, stop: Sequence[str]) -> None:
        """Raise `OptionError` for strings that no text can hold."""
        if not all(stop):
            raise OptionError("got an empty stop string; expected text that ends what is written.")
        for string in stop:
            token = self._tokenizer.token_to_id(string)
            if token is not None and not self.decode(np.array([token])):
                raise OptionError(
                    f"got the stop string {string!r}, a special token, which is not part of texts. The bundle's end "
                    "tokens end them anyway; for another one, set eos_token_id in generation_config.json and export."
                )

    def _batch(self, requests: Sequence[TextRequest]) -> list[tuple[int, Text]]:
        stats, texts = GenerationStats(), list[tuple[int, Text]]()

        def done(number: int, tokens: Int64, finish: Finish, cost: TextStats) -> None:
            text = Text(self._ends.cut(self.decode(tokens)), tuple(tokens.tolist()), finish, cost)
            stats.count(text)
            texts.append((number, text))

        with stats.timed("total"):
            TextSession(self._engine, requests, self.drafter, self.verification, self._ends, self._planning, stats).run(
                done
            )
        with self._lock:
            self.stats.merge(stats)
        return texts

    def _group(self, id: str | None, group: str | None) -> str | None:
        """Whose pool drafts for a request."""
        if group is None:
            return None if self._pool is None or id is None else self._pool.group_of(id)
        if self._pool is not None and group not in self._pool.groups:
            known = ", ".join(self._pool.groups[:10]) or "none"
            raise PromptError(f"the pool has no group {group!r}; it has: {known}. Leave it out for everybody's pool.")
        return group


def _pool(pool: str | Path | TextPool, bundle: TextBundle, drafting: Drafting | None) -> TextPool:
    """A pool that fits the bundle and the drafts; raises `PoolError` for others."""
    opened = pool if isinstance(pool, TextPool) else TextPool.open(pool)
    if opened.tokenizer_sha256 != bundle.manifest.tokenizer_sha256:
        raise PoolError(
            f"{opened.path} was built with another tokenizer than that of {bundle.path}: its tokens mean other text. "
            f"Build it again with: specbeam build-pool TEXTS.jsonl --tokenizer {bundle.path} --output POOL"
        )
    if drafting is not None and opened.facts.reach < drafting.reach:
        raise PoolError(
            f"{opened.path} holds windows of {opened.facts.reach} tokens; to look up {drafting.query} and draft "
            f"{drafting.depth} takes {drafting.reach}. Build it again with --query {drafting.query} --depth "
            f"{drafting.depth}, or ask for less."
        )
    return opened


def _planning(bundle: TextBundle, engine: str, speculation: str | None, verification: TextVerification) -> TextPlanning:
    """How much is drafted; raises `OptionError` for auto without a measured latency."""
    if speculation not in ("auto", "fixed", None):
        raise OptionError(f"got the speculation {speculation!r}; expected 'auto' or 'fixed'.")
    measured = not engine.startswith("torch-")
    if speculation == "auto" and not measured:
        raise OptionError(
            f"{engine} has no measured latency to plan by. Use --speculation fixed, or an engine made by build-engine."
        )
    if speculation == "fixed" or not measured or (speculation is None and verification.mode == "relaxed"):
        return AllOfIt()
    return ByCost(CallCosts(latency=bundle.engine_facts(engine).roles["target"].latency))
