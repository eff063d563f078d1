"""Arguments as they come in: each is checked once, where it enters, and refused by an `OptionError`."""

import dataclasses
from collections.abc import Collection, Mapping
from functools import cache, lru_cache
from os import PathLike
from pathlib import Path
from reprlib import Repr
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import numpy as np

from .bounds import LARGEST as LARGEST  # of numbers that say how many
from .errors import OptionError
from .files import Frozen

T = TypeVar("T")
MOST_THREADS = 1024  # of an engine; libraries hang or fail beyond
MOST_MEMORY = 2**60  # bytes
LARGEST_SEED = 2**63 - 1
_WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text", type(None): "None"}
_REPR = Repr()
_REPR.maxstring = _REPR.maxother = 80


def shown(value: object) -> str:
    """A value as a message names it: short, whatever it is."""
    try:
        return _REPR.repr(value)
    except Exception:  # a stranger's __repr__, or a number of more digits than Python writes
        return f"a {type(value).__name__}"


def refused(value: object, name: str, expected: str) -> OptionError:
    """The error for an argument that is not what was expected."""
    return OptionError(f"{name} is {shown(value)}, expected {expected}.")


def whole_number(value: object, name: str, least: int = 1, most: int = LARGEST) -> int:
    """A whole number within limits; True and False are none."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and least <= value <= most:
        return int(value)
    small = most >= LARGEST and not (isinstance(value, int) and value > most)
    raise refused(value, name, f"a whole number, {f'at least {least}' if small else f'{least} to {most}'}")


def within(settings: Any, least: int, **most: int) -> None:
    """Check fields that are whole numbers, or several of them, by their limits; None is let pass."""
    for name, limit in most.items():
        value = getattr(settings, name)
        for each in value if isinstance(value, tuple) else (value,) * (value is not None):
            whole_number(each, name, least, limit)


def seconds(value: object, name: str) -> float:
    """A time to wait: a number of seconds, more than 0."""
    if isinstance(value, int | float | np.number) and not isinstance(value, bool) and 0 < value < LARGEST:
        return float(value)
    raise refused(value, name, "seconds, a number above 0")


def flag(value: object, name: str) -> bool:
    """True or False, and nothing that only counts as either."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise refused(value, name, "True or False")


def choice(value: T, name: str, choices: Collection[str]) -> T:
    """One of some words."""
    if isinstance(value, str) and value in choices:
        return value
    raise refused(value, name, f"one of {', '.join(choices)}")


def text(value: object, name: str) -> str:
    """Text."""
    if isinstance(value, str):
        return str(value)
    raise refused(value, name, "text")


def instance(value: T, name: str, kind: type | tuple[type, ...], such_as: str) -> T:
    """A value of some class; `such_as` shows how one is made."""
    if isinstance(value, kind):
        return value
    raise refused(value, name, such_as)


def function(value: T, name: str) -> T:
    """Something to call."""
    if callable(value):
        return value
    raise refused(value, name, "a function")


def path(value: object, name: str) -> Path:
    """A path, as text or as a `Path`."""
    if isinstance(value, str | PathLike) and str(value) and "\0" not in str(value):
        return Path(value)
    raise refused(value, name, "a path")


def listed(values: object, name: str, what: str) -> list[Any]:
    """All that an iterable holds; neither a text nor a mapping is one of `what`."""
    if isinstance(values, str | bytes):
        raise refused(values, name, f"a list of {what}: put it into a list")
    if isinstance(values, Mapping):
        raise refused(values, name, f"a list of {what}")
    try:
        iterator = iter(values)  # type: ignore[call-overload]  # which is what is found out
    except TypeError:
        raise refused(values, name, f"a list of {what}") from None
    return list(iterator)


def as_id(value: object, name: str) -> str:
    """The id of an item or of a user: text, or a whole number, which counts as its digits, as in history files."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(whole_number(value, name, -(2**63), 2**63 - 1))
    raise refused(value, name, "an id: text, or a whole number")


def item_ids(values: object, name: str) -> list[str]:
    """The item ids that an iterable holds; see `as_id`. The common case, text alone, costs next to nothing."""
    ids = listed(values, name, "item ids")
    return ids if set(map(type, ids)) <= {str} else [as_id(value, f"an item of {name}") for value in ids]


def history(values: object, name: str = "history") -> list[str]:
    """Item ids whose order counts."""
    if isinstance(values, set | frozenset):
        raise refused(values, name, "item ids, oldest first: a set has no order")
    return item_ids(values, name)


def id_set(values: object, name: str) -> frozenset[str]:
    """Item ids whose order does not count; a frozen set of them stays the one it is."""
    if type(values) is frozenset and _all_text(values):
        return values
    return frozenset(item_ids(values, name))


@lru_cache(8)
def _all_text(ids: frozenset[Any]) -> bool:
    """Remembered for long lists, which many requests share."""
    return set(map(type, ids)) <= {str}


def check_types(settings: Any) -> None:
    """Check a frozen configuration's fields by their annotations, and keep them as these say: lists become tuples.

    Its fields are words, numbers, tuples of these, and other configurations.
    """
    own: Any = type(settings)  # a type is hashable, which mypy doubts
    for name, kind in _kinds(own).items():
        value = getattr(settings, name)
        if dataclasses.is_dataclass(kind) and type(value) is kind:
            continue  # it has checked itself
        try:
            if isinstance(value, Mapping) and get_origin(kind) is not dict:
                raise TypeError
            kept = msgspec.convert(_plain(value), kind)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
            raise refused(value, name, _described(kind)) from None
        if kept is not value:
            _set(settings, name, kept)


def _set(settings: Any, name: str, value: object) -> None:
    """Set a frozen configuration's field while it is made."""
    if dataclasses.is_dataclass(settings):
        object.__setattr__(settings, name, value)
    else:
        msgspec.structs.force_setattr(settings, name, value)


def known(values: Mapping[str, Any], kind: type, name: str) -> dict[str, Any]:
    """Some fields of a configuration by their names; refuses names that it does not have."""
    fields = _kinds(kind)
    strange = [key for key in instance(values, name, Mapping, "a mapping of settings") if key not in fields]
    if strange:
        raise OptionError(f"{name} holds {shown(strange[0])}, expected any of: {', '.join(fields)}.")
    return dict(values)


@cache
def _kinds(kind: Any) -> dict[str, Any]:
    """The annotations of a configuration's fields."""
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else msgspec.structs.fields(kind)
    return {field.name: hints[field.name] for field in fields}


def _described(kind: Any) -> str:
    """What an annotation admits, in words."""
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if get_origin(kind) is dict:
        return "names with their values"
    if get_origin(kind) is tuple:
        return f"a list, each of it {_described(parts[0])}"
    if parts:  # a union
        return " or ".join(map(_described, parts))
    return _WORDS.get(kind) or f"such as {kind.__name__}()"


def _plain(value: object) -> object:
    """NumPy's numbers and arrays as Python's, also in a list."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


class Checked(Frozen, frozen=True):
    """A configuration that people write by hand: unknown keys and values of another type are refused."""

    def __post_init__(self) -> None:
        check_types(self)
