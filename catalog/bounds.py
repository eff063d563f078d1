"""What files may say: ranges of numbers and names of files, which reading JSON into a structure checks."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec

DAMAGED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # what decoding JSON raises that is none
LARGEST = 2**31 - 1  # arrays hold 32-bit numbers
Whole = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=LARGEST)]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**53)]  # of files; parameters of models; what was counted
Number = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
AboveZero = Annotated[float, msgspec.Meta(gt=0, le=1e12)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
LONGEST_NAME = 255  # bytes that file systems take


def is_inside(name: str) -> bool:
    """Whether a name of a file, with "/" between its parts, leads to one below the folder it is looked for in."""
    parts = name.split("/")
    sizes = [len(part.encode("utf-8", "surrogatepass")) for part in parts]
    return (
        not {".", "..", ""} & set(parts) and max(sizes) <= LONGEST_NAME and sum(sizes) < 8 * LONGEST_NAME
        and not any(sign in "\\:" or ord(sign) < 32 for sign in name)
    )  # fmt: skip


def check_names(names: Iterable[str]) -> None:
    """Raise `ValueError` for a file's name that leads out of its folder: what a file names is never followed there."""
    for name in names:
        if not is_inside(name):
            raise ValueError(f'the file name {name!r} is not one inside the folder; expected such as "target/a.onnx"')


def leads_out(path: Path, root: Path) -> bool:
    """Whether a path below `root` is, by symbolic links, somewhere else."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
