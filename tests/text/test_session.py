"""The text loop: whatever is drafted, strict verification writes what greedy decoding writes."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specbeam.engines.scripted import ScriptedEngine
from specbeam.pools.texts.branches import Branches
from specbeam.text.draft import NoDrafter, TextDrafter
from specbeam.text.ends import Ends
from specbeam.text.planning import AllOfIt
from specbeam.text.session import TextSession
from specbeam.text.stats import GenerationStats
from specbeam.text.types import Finish, TextRequest, TextStats, TextVerification

VOCABULARY, END = 11, 3
Written = dict[int, tuple[list[int], Finish, TextStats]]


class Guesses(TextDrafter):
    """Drafts random trees, in which the target's own continuation is hidden with some chance at every step."""

    def __init__(self, engine: ScriptedEngine, seed: int, right: float) -> None:
        self.engine, self.rng, self.right, self.learned = engine, np.random.default_rng(seed), right, 0

    def propose(
        self, contexts: Sequence[np.ndarray], groups: Sequence[str | None], depths: np.ndarray, *, fresh: bool
    ) -> Branches:
        request, parent, token, depth = [], [], [], []
        for b, (context, deepest) in enumerate(zip(contexts, depths.tolist(), strict=True)):
            nodes: list[tuple[int, int, list[int]]] = [(-1, 0, context.tolist())]
            for _ in range(self.rng.integers(0, 9)):
                above, level, text = nodes[self.rng.integers(len(nodes))]
                if level >= deepest:
                    continue
                best = int(self.engine.logprobs_after(np.array(text)).argmax())
                chosen = best if self.rng.random() < self.right else int(self.rng.integers(VOCABULARY))
                if any(p == above and t == chosen for p, t, r in zip(parent, token, request, strict=True) if r == b):
                    continue
                nodes.append((len(token), level + 1, [*text, chosen]))
                request.append(b)
                parent.append(above)
                token.append(chosen)
                depth.append(level + 1)
        arrays = (np.array(part, np.int64) for part in (request, parent, token, depth))
        return Branches(*arrays, np.ones(len(token)))

    def learn(self, tokens: np.ndarray, group: str | None) -> None:
        self.learned += 1


def greedy(engine: ScriptedEngine, prompt: Sequence[int], limit: int) -> list[int]:
    """The definition."""
    text = list(prompt)
    while len(text) < len(prompt) + limit:
        text.append(int(engine.logprobs_after(np.array(text)).argmax()))
        if text[-1] == END:
            break
    return text[len(prompt) :]


def write(
    engine: ScriptedEngine,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    drafter: TextDrafter,
    verification: TextVerification | None = None,
) -> Written:
    requests = [TextRequest(np.array(p), None, limit) for p, limit in zip(prompts, limits, strict=True)]
    ends = Ends([END], [], lambda tokens: " ".join(map(str, tokens)))
    written: Written = {}

    def done(number: int, tokens: np.ndarray, finish: Finish, stats: TextStats) -> None:
        assert number not in written
        written[number] = tokens.tolist(), finish, stats

    verification, broken = verification or TextVerification(), list[int]()
    TextSession(engine, requests, drafter, verification, ends, AllOfIt(), GenerationStats()).run(done, broken.append)
    assert not broken
    return written


prompts_and_limits = st.lists(
    st.tuples(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=6), st.integers(1, 12)),
    min_size=1, max_size=4,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(asked=prompts_and_limits, seed=st.integers(0, 2**16), right=st.sampled_from([0.0, 0.5, 0.9]))
def test_strict_is_greedy_decoding_whatever_is_drafted(asked: list, seed: int, right: float) -> None:
    engine = ScriptedEngine(VOCABULARY, seed=seed)
    prompts, limits = zip(*asked, strict=True)
    drafter = Guesses(engine, seed, right)
    written = write(engine, prompts, limits, drafter)
    for number, (prompt, limit) in enumerate(asked):
        tokens, finish, stats = written[number]
        assert tokens == greedy(engine, prompt, limit)
        assert finish == ("end" if tokens[-1] == END else "length")
        assert 0 <= stats.target_calls - (len(tokens) - stats.accepted) <= 1  # the end may have been drafted
        assert stats.accepted <= stats.drafted
    assert drafter.learned == len(prompts)


def test_drafts_are_accepted_and_rejected() -> None:
    engine = ScriptedEngine(VOCABULARY, seed=5)
    prompts = [[1, 2, 4 + i] for i in range(6)]
    plain = write(engine, prompts, [30] * 6, NoDrafter())
    drafted = write(engine, prompts, [30] * 6, Guesses(engine, 1, 0.7))
    assert {n: t for n, (t, _, _) in plain.items()} == {n: t for n, (t, _, _) in drafted.items()}
    assert all(stats.target_calls == len(tokens) for tokens, _, stats in plain.values())
    calls = sum(stats.target_calls for _, _, stats in drafted.values())
    tokens = sum(len(tokens) for tokens, _, _ in drafted.values())
    assert calls < 0.8 * tokens
    assert 0 < sum(s.accepted for _, _, s in drafted.values()) < sum(s.drafted for _, _, s in drafted.values())


def test_relaxed_lets_only_likely_tokens_pass() -> None:
    """Every written token is the target's most likely one, or among its two and likelier than the threshold."""
    engine = ScriptedEngine(VOCABULARY, seed=7, sharpness=1.5)
    prompts = [[1, 2, 4 + i] for i in range(6)]
    relaxed = TextVerification("relaxed", accept_top_k=2, threshold=0.12)
    written = write(engine, prompts, [30] * 6, Guesses(engine, 3, 0.3), relaxed)
    others = 0
    for number, (tokens, _, _) in written.items():
        for place, token in enumerate(tokens):
            logprobs = engine.logprobs_after(np.array(prompts[number] + tokens[:place]))
            if token != logprobs.argmax():
                others += 1
                assert np.exp(logprobs[token]) > 0.12
                assert (logprobs > logprobs[token]).sum() < 2
    assert others > 2


@pytest.mark.parametrize("batch", [1, 3])
def test_one_token_is_written_without_a_draft(batch: int) -> None:
    engine = ScriptedEngine(VOCABULARY)
    drafter = Guesses(engine, 0, 1.0)
    written = write(engine, [[1, 2]] * batch, [1] * batch, drafter)
    assert all(stats == TextStats(1, 0, 0) for _, _, stats in written.values())


def test_stop_strings_end_a_text_where_they_are_complete() -> None:
    ends = Ends([END], ["5 6", "9"], lambda tokens: " ".join(map(str, tokens)))
    assert ends.find(np.array([1, 5]), 1, 10) is None
    assert ends.find(np.array([1, 5, 6, 9, END]), 4, 10) == (3, "stop")
    assert ends.find(np.array([1, END, 9]), 3, 10) == (2, "end")
    assert ends.find(np.array([1, 2, 4, 9]), 2, 3) == (3, "length")
    assert ends.cut("1 5 6 9") == "1 "
    assert ends.cut("1 9 5 6") == "1 "
    assert ends.cut("1 2") == "1 2"


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_stop_strings_do_not_depend_on_how_many_tokens_come_at_once(at_once: int) -> None:
    rng = np.random.default_rng(3)
    ends = Ends([END], ["55", "919", "0"], lambda tokens: "".join(map(str, tokens)))
    for _ in range(100):
        text, found = rng.integers(4, 10, 20), None
        for end in range(at_once, 21, at_once):
            found = ends.find(text[:end], at_once, 100)
            if found:
                break
        first = next((n for n in range(1, 21) if any(s in "".join(map(str, text[:n])) for s in ends.strings)), None)
        assert found == (None if first is None else (first, "stop"))
