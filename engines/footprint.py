"""What an engine's calls take of memory: an estimate, for those who must not run out of it."""

from dataclasses import dataclass

from .bundle.facts import ModelFacts

USUAL_GROUP = 8  # heads that share a key, at most, in models whose bundles do not say
USUAL_WIDENING = 4  # of the MLP, likewise
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
INDICES = 8 * 4  # bytes of a token's id, position, prompt and place
BIASES, DISTANCES = 2, 8 * 2  # of two tokens and a head, at a time; bytes of how far apart two tokens are


@dataclass(frozen=True)
class Reading:
    """Bytes that an encoder takes while it reads prompts, and what it leaves, by what they grow with."""

    slot: int = 0  # keys and values of one token of a prompt, for all layers of the decoder
    token: int = 0  # a token of a prompt: the widest layer's activations
    pair: int = 0  # two tokens of it: one layer's attention scores, and the bias by how far apart they are
    cross: int = 0  # a token that is decoded later and one of the prompt: one layer's attention scores

    def call(self, batch: int, prompt: int) -> int:
        """Of reading prompts [B, P], what it leaves included."""
        return batch * prompt * (self.slot + self.token + self.pair * prompt)


@dataclass(frozen=True)
class Footprint:
    """Bytes that calls take, by what they grow with. An engine of zeros (a scripted one) takes none.

    A call of B rows, T new tokens each, on S cached slots, with R rows of logits holds at its peak the cache that it
    was given, the longer one that takes its place, and one layer's work or the head's, whichever comes later. Where an
    encoder reads prompts, calls are the decoder's, and look at P read tokens as well.
    """

    slot: int = 0  # keys and values of one slot of one row, in all layers
    token: int = 0  # a new token: the widest layer's activations, and what says who sees what
    pair: int = 0  # a new token and a slot that it might see: one layer's attention scores, and the mask
    row: int = 0  # a row of logits: over the vocabulary, and of the catalog's columns
    reading: Reading | None = None  # None: prompts are decoded

    def slots(self, prompt: int) -> int:
        """Of the cache, that a prompt of so many tokens takes."""
        return prompt if self.reading is None else 1

    def read(self, prompt: int) -> int:
        """Tokens that an encoder reads of such a prompt."""
        return 0 if self.reading is None else prompt

    def cache(self, batch: int, length: int, read: int = 0) -> int:
        """Of a cache [B, S], and what an encoder has left beside it of prompts [B, P]."""
        left = 0 if self.reading is None else self.reading.slot
        return batch * (self.slot * length + left * read)

    def call(self, batch: int, new: int, past: int, rows: int, read: int = 0) -> int:
        """Of a call, beside the cache that it is given."""
        cross = 0 if self.reading is None else self.reading.cross
        work = max(new * (self.token + self.pair * (past + new) + cross * read), rows * self.row)
        return self.cache(batch, past + new) + batch * work


def footprint_of(facts: ModelFacts, cache: str, *, columns: int, rows_of_head: int) -> Footprint:
    """Of an exported graph with a dense mask, on the CPU.

    cache: the type of keys, values and mask; columns: C; rows_of_head: of logits, the whole vocabulary or C. As
    measured: of logits there are two at a time, before and behind the softmax; attention scores are float32 and of one
    layer; the mask [B, 1, T, S + T] is made by way of one of booleans. Relative biases are a mask of every head's own,
    which is made by way of another, and stays for all layers.
    """
    heads = facts.heads or USUAL_GROUP * facts.kv_heads
    hidden = facts.hidden or heads * facts.head_dim
    intermediate = facts.intermediate or USUAL_WIDENING * hidden
    own = BYTES[cache]
    casts = 1 if own == 4 else 2  # CPUs compute half precision in float32, beside what it was
    activations = 4 * casts * (4 * hidden + 3 * intermediate + 4 * heads * facts.head_dim)
    slot, scores = 2 * facts.layers * facts.kv_heads * facts.head_dim * own, 4 * casts * heads
    reading, bias = None, 0
    if facts.encoder is not None:
        bias = BIASES * own * heads + DISTANCES
        reading = Reading(slot=slot, token=activations + INDICES, pair=scores + bias, cross=scores + own + 1)
    return Footprint(
        slot=slot,
        token=activations + INDICES,
        pair=scores + bias + own + 1,
        row=2 * 4 * casts * rows_of_head + 2 * 4 * columns,
        reading=reading,
    )
