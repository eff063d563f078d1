"""What was built, compared with the exported graph: on random tokens, and on prompts as requests have them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..catalog.errors import EngineError, RefusedError
from ..catalog.finite import are_logprobs, largest_difference
from .base import Engine, Float32, Int64
from .bundle.facts import EnginePrecision, Limits, ModelFacts, Role
from .bundle.model import ModelBundle, Sample
from .latency import call, random_tokens
from .reading import begin

PROMPT, NODES = 30, 20  # random tokens in a prompt, and behind it
OVERFLOW = "overflow in fp16, whose largest finite number is 65,504"


class Case(NamedTuple):
    """A prompt, and nodes behind it, for a batch."""

    what: str
    prompt: Int64  # [B, P]
    nodes: Int64  # [B, n]
    rows: int  # most rows of logits in a call


def cases(facts: ModelFacts, samples: Sequence[Sample], limits: Limits | None = None) -> Iterator[Case]:
    """What engines are compared on, within the limits of the one that was built."""
    most_batch, most_prompt, most_nodes = 3, facts.context - 1, NODES
    if limits is not None:
        most_batch, most_prompt = min(3, limits.max_batch), min(most_prompt, limits.max_prompt)
        most_nodes = min(NODES, limits.max_nodes)
    for sample in samples:
        following = sample.following[None, :most_nodes]
        yield Case(sample.what, sample.prompt[None, :most_prompt], following, most_nodes)
    for batch in (1, most_batch):
        prompt = min(PROMPT, most_prompt)
        nodes = random_tokens(facts, prompt, most_nodes, batch)
        yield Case("random tokens", random_tokens(facts, 0, prompt, batch), nodes, most_nodes)


class Answer(NamedTuple):
    """What an engine said in a case."""

    case: Case
    logprobs: tuple[Float32, Float32]  # [B, R, C] of the prompt's last tokens, and of the nodes


def asked(engine: Engine, case: Case) -> tuple[Float32, Float32]:
    """Log-probabilities [B, R, C] of a prompt's last tokens, and of the nodes behind it."""
    begun = begin(engine, case.prompt, case.rows)
    first = begun.logprobs.copy()
    return first, engine.forward(call(case.nodes, begun.slots, begun.cache, rows=case.rows), begun.cache).copy()


def answers(exported: Engine, found: Iterable[Case], refuse: "Refusal") -> Iterator[Answer]:
    """What the exported graph says, to be kept: it need not be in memory any more when others are held against it.

    Raises `EngineError` where that is no log-probability.
    """
    for case in found:
        logprobs = asked(exported, case)
        if not all(map(are_logprobs, logprobs)):
            raise refuse.exported(case.what)
        yield Answer(case, logprobs)


def difference(said: Iterable[Answer], engine: Engine, refuse: "Refusal") -> float:
    """Largest difference of a log-probability between what was said and what an engine says.

    Raises `EngineError` where it gives what is no log-probability.
    """
    worst = 0.0
    for case, expected in said:
        got = asked(engine, case)
        if not all(map(are_logprobs, got)):
            raise refuse.built(case.what)
        worst = max(worst, *map(largest_difference, expected, got))
    return worst


def over_columns(said: Iterable[Answer]) -> list[Answer]:
    """Answers renormalised over their columns, as those of `CONSTRAINED` graphs are."""
    return [Answer(case, (_renormalised(first), _renormalised(second))) for case, (first, second) in said]


def _renormalised(logprobs: Float32) -> Float32:
    with np.errstate(invalid="ignore"):  # a row of nothing but minus infinity becomes NaN, which no engine equals
        shifted = logprobs - logprobs.max(axis=-1, keepdims=True)
        result: Float32 = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


class Refusal(NamedTuple):
    """What to say of numbers that are none."""

    bundle: ModelBundle
    role: Role
    precision: EnginePrecision

    def exported(self, what: str) -> EngineError:
        """The exported graph gives them."""
        fault, remedy = "its weights are damaged", "Mend the checkpoint, and export it again."
        if self.bundle.manifest.precision == "fp16":
            fault = f"the model's activations {OVERFLOW}"
            remedy = "Export the checkpoint again with --precision bf16 or fp32."
        return EngineError(
            f"The exported graph of the {self.role} gives NaN or infinity as a log-probability on {what}: {fault}. "
            f"{remedy}"
        )

    def built(self, what: str) -> EngineError:
        """What was built gives them, the exported graph does not."""
        option = "--precision" if self.role == "target" else "--draft-precision"
        if self.precision == "fp16":
            return RefusedError(
                f"The {self.role}'s activations {OVERFLOW}: on {what} it gives NaN or infinity as a log-probability. "
                f"Build it in bf16 (on a GPU) or in fp32: specbeam build-engine {self.bundle.path} {option} fp32"
            )
        return RefusedError(
            f"The {self.role}, built in {self.precision}, gives NaN or infinity as a log-probability on {what}; the "
            f"exported graph does not. Try another precision ({option}), or another version of the backend."
        )
