"""Sizes that calls on a GPU are padded to, so that shapes, and with them captured graphs, come again.

Padded tokens are holes of the cache that nobody sees (engines/base.py). They cost next to nothing where a call is
bound by reading the weights, and at most a quarter of the tokens beyond that.
"""

UNIT = 8  # half-precision tensor cores and fused attention want sizes, and rows of the mask, in eights


def bucket(count: int) -> int:
    """The size that `count` tokens or rows are padded to: 8, 16, ... 64, 80, ... 128, 160, ... 256, 320, ...

    Four sizes an octave beyond 32: at most a quarter more, and few enough to capture a graph for each.
    """
    step = max(UNIT, (1 << (max(count, 1) - 1).bit_length()) // 8)
    return max(-(-count // step), 1) * step


def padded_tokens(past: int, new: int) -> int:
    """Tokens that a call of `new` tokens on `past` cached slots is padded to.

    The slots behind it are a multiple of `UNIT`: later calls' caches are those of few lengths, too.
    """
    tokens = bucket(new)
    return tokens + -(past + tokens) % UNIT
