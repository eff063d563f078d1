"""Which group a user or an item belongs to: a file of ids and group names."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from ...catalog.errors import PoolError
from ...catalog.files import whole_file
from ...catalog.items import some
from ...catalog.records import read_json

EXPECTED = 'expected one JSON object of ids and group names, both strings, such as {"u1": "3", "u2": "0"}'
_Name = Annotated[str, msgspec.Meta(min_length=1)]


def read_groups(path: Path) -> dict[str, str]:
    """Id to group name; an id that is not in it belongs to no group.

    Raises `PoolError` for a file that cannot be read, that is no such object, that holds nothing, or that names an
    id twice.
    """
    expected = f"{EXPECTED}. `specbeam group-users` writes such files"
    groups, text = read_json(path, dict[str, _Name], expected, PoolError)
    names: Counter[str] = json.loads(text, object_pairs_hook=lambda pairs: Counter(key for key, _ in pairs))
    if not groups:
        raise PoolError(f"{path} holds no ids; {EXPECTED}.")
    if repeated := [name for name, count in names.items() if count > 1]:
        raise PoolError(f"{path}: got {some(repeated)} more than once; expected every id once.")
    return groups


def write_groups(path: Path, groups: Mapping[str, str], *, overwrite: bool = False) -> None:
    """Write what `read_groups` reads, an id a line, sorted; the file is whole or absent."""
    with whole_file(path, replace=overwrite) as file:
        file.write(json.dumps(dict(sorted(groups.items())), indent=0, ensure_ascii=False).encode() + b"\n")


def group_sizes(groups: Mapping[str, str]) -> dict[str, int]:
    """Group name to its number of ids, the largest first."""
    return dict(Counter(groups.values()).most_common())
