"""How much each part does: on a GPU, and in a dry run on a CPU."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """See `SIZES`."""

    users: int  # whose lists are compared
    top_k: tuple[int, ...]
    batches: tuple[int, ...]
    width: int  # drafted nodes a level
    repeats: int  # of what is timed
    batch_sizes: tuple[int, ...]  # of calls that are timed
    past: tuple[int, ...]
    new: tuple[int, ...]
    targets: tuple[str, ...]  # of `gpu_rig.SHAPES`
    draft: str
    exported: tuple[str, ...]  # of the targets, those that ONNX Runtime runs as well: they are exported
    prompt: int  # tokens, of these
    items: int
    codes: int
    calibration: int  # histories that int8 is calibrated on
    timed: int  # users whose lists are timed with pools
    prompts: int  # texts
    tokens: int  # of a text


SIZES = {
    "full": Sizes(
        users=100, top_k=(1, 10, 20), batches=(1, 7, 32), width=40, repeats=5, batch_sizes=(1, 8, 32),
        past=(0, 80, 400), new=(1, 8, 20, 40, 80, 160, 320), targets=("1b", "7b"), draft="68m", exported=("1b",),
        prompt=100, items=100_000, codes=64, calibration=100, timed=160, prompts=48,
        tokens=120,
    ),
    "small": Sizes(
        users=6, top_k=(3,), batches=(1, 3), width=6, repeats=1, batch_sizes=(1, 2), past=(0, 8), new=(1, 8),
        targets=("tiny",), draft="tiny-draft", exported=(), prompt=10, items=400, codes=8, calibration=10, timed=4,
        prompts=3, tokens=12,
    ),
}  # fmt: skip
