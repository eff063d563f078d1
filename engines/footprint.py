"""What an engine's calls take of memory: an estimate, for those who must not run out of it."""

from dataclasses import dataclass

from .bundle.facts import ModelFacts

USUAL_GROUP = 8  # heads that share a key, at most, in models whose bundles do not say
USUAL_WIDENING = 4  # of the MLP, likewise
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
INDICES = 8 * 4  # bytes of a token's id, position, prompt and place


@dataclass(frozen=True)
class Footprint:
    """Bytes that calls take, by what they grow with. An engine of zeros (a scripted one) takes none.

    A call of B rows, T new tokens each, on S cached slots, with R rows of logits holds at its peak the cache that it
    was given, the longer one that takes its place, and one layer's work or the head's, whichever comes later.
    """

    slot: int = 0  # keys and values of one slot of one row, in all layers
    token: int = 0  # a new token: the widest layer's activations, and what says who sees what
    pair: int = 0  # a new token and a slot that it might see: one layer's attention scores, and the mask
    row: int = 0  # a row of logits: over the vocabulary, and of the catalog's columns

    def cache(self, batch: int, length: int) -> int:
        """Of a cache [B, S]."""
        return self.slot * batch * length

    def call(self, batch: int, new: int, past: int, rows: int) -> int:
        """Of a call, beside the cache that it is given."""
        work = max(new * (self.token + self.pair * (past + new)), rows * self.row)
        return self.cache(batch, past + new) + batch * work


def footprint_of(facts: ModelFacts, cache: str, *, columns: int, rows_of_head: int) -> Footprint:
    """Of an exported graph with a dense mask, on the CPU.

    cache: the type of keys, values and mask; columns: C; rows_of_head: of logits, the whole vocabulary or C. As
    measured: of logits there are two at a time, before and behind the softmax; attention scores are float32 and of one
    layer; the mask [B, 1, T, S + T] is made by way of one of booleans.
    """
    heads = facts.heads or USUAL_GROUP * facts.kv_heads
    hidden = facts.hidden or heads * facts.head_dim
    intermediate = facts.intermediate or USUAL_WIDENING * hidden
    own = BYTES[cache]
    casts = 1 if own == 4 else 2  # CPUs compute half precision in float32, beside what it was
    activations = 4 * casts * (4 * hidden + 3 * intermediate + 4 * heads * facts.head_dim)
    return Footprint(
        slot=2 * facts.layers * facts.kv_heads * facts.head_dim * own,
        token=activations + INDICES,
        pair=4 * casts * heads + own + 1,
        row=2 * 4 * casts * rows_of_head + 2 * 4 * columns,
    )
