"""What cannot be, from C: a status for every kind, and a text that says what was got and what to do."""

import re
import shutil
from pathlib import Path

import pytest

from cpp_library import Library, told
from cpp_requests import SETTINGS
from nan_cases import marked
from specbeam.serve.embedded import Status
from tiny_bundle import Tiny, break_rows

pytestmark = pytest.mark.services
EXPECTED: dict[Status, dict[str, str]] = {
    Status.INVALID: {
        "open-out-null": "engine is NULL", "open-path-null": "path is NULL", "path-not-utf8": "the path is not UTF-8",
        "settings-key": "unknown field `thread`.*Expected a JSON object with some of: mode",
        "settings-value": r"Expected `int` >= 1 - at `\$.threads`", "settings-json": "the settings cannot be read",
        "settings-not-utf8": "the settings is not UTF-8",
        "options-size": r"specbeam_options.size is 0, expected at least \d+: fill it by specbeam_options_default",
        "engine-null": "engine is NULL", "out-null": "result is NULL", "submit-out-null": "pending is NULL",
        "submit-engine-null": "engine is NULL", "items-null": "items is NULL, expected 2 texts",
        "item-null": r"items\[1\] is NULL", "item-not-utf8": r"items\[1\] is not UTF-8",
        "history-empty": "it is empty",
        "history-unknown": r"none of its 2 items is in the catalog \(e.g. 'no', 'such'\)",
        "k-zero": "k is 0, expected", "k-negative": "k is -3, expected", "k-huge": "lists of at most 200 items",
        "user-not-utf8": "user is not UTF-8",
        "timeout-negative": "timeout_ms is -1.0+, expected milliseconds, 0 or more",
        "timeout-nan": "timeout_ms is -?nan", "timeout-infinite": "timeout_ms is inf",
        "verification-mode": r"the verification cannot be read: .*at `\$.mode`",
        "verification-key": "unknown field `thr",
        "ask-size": "specbeam_ask.size is 8, expected at least",
        "grown-said": "has fields that this library .*not know",
        "filter-out-null": "filter is NULL", "filter-engine-null": "engine is NULL",
        "filter-hole": r"allow\[1\] is NULL",
        "filter-not-utf8": r"deny\[1\] is not UTF-8", "filter-deny-null": "deny is NULL, expected 2 texts",
        "filter-of-another": "prepared by another engine", "tokens-null": "tokens is NULL",
        "tokens-lengths-null": "lengths is NULL", "tokens-items-null": "items is NULL",
        "tokens-scores-null": "scores is NULL", "tokens-no-rows": "0 rows and 3 columns; expected some of both",
        "tokens-overflow": r"an array of \d+ rows", "tokens-length": r"lengths\[0\] is 9, expected 1 to 3 tokens",
        "tokens-id": r"tokens\[0, 1\] is -7, expected a token id below", "tokens-user": "go with histories, not with",
        "tokens-k": "k is 0, expected", "wait-out-null": "result is NULL", "wait-nan": "timeout_ms is not a number",
        "wait-null": "pending is NULL", "notify-null": "pending is NULL", "notify-nothing": "call is NULL",
        "notify-twice": "to be told already",
    },
    Status.BUNDLE: {"path-missing": "no/such/bundle", "settings-engine": "abacus"},
    Status.OVERLOADED: {"overloaded": "requests are waiting, which is as many as may. Ask again in"},
    Status.TIMEOUT: {"timeout": "deadline"},
    Status.CANCELLED: {"cancelled": "the request was cancelled"},
    Status.FAILED: {"failed": "NaN or infinity"},
    Status.MEMORY: {"tokens-memory": "memory|allocate"},
}  # fmt: skip


def test_every_error_has_its_status_and_says_what_to_do(library: Library, tiny: Tiny, bundle: Path) -> None:
    token, item, _ = marked(tiny)
    break_rows(bundle, [token])
    printed = told(library.program("errors.c"), tiny.bundle, SETTINGS, bundle, item).splitlines()
    fields = [line.split("\t") for line in printed]
    assert [len(line) for line in fields] == [3] * (len(fields) - 2) + [1, 1], printed  # nothing was left by a failure
    found = {name: (int(status), text) for name, status, text in fields[1:-2]}
    assert fields[0] == ["first", "0", ""]
    expected = {name: (status, said) for status, texts in EXPECTED.items() for name, said in texts.items()}
    assert found.keys() == expected.keys()
    wrong = {
        name: found[name]
        for name, (status, said) in expected.items()
        if found[name][0] != status or not re.search(said, found[name][1])
    }
    assert not wrong
    assert printed[-2:] == ["0 1 -1 1", "3 1 1 1 1"]


@pytest.mark.parametrize("damage", ["no manifest", "an engine's file", "no engines"])
def test_a_damaged_bundle_is_the_bundles_fault(library: Library, bundle: Path, damage: str) -> None:
    if damage == "no manifest":
        (bundle / "manifest.json").unlink()
    elif damage == "no engines":
        shutil.rmtree(bundle / "engines")
    else:
        path = max(bundle.glob("engines/*/target/*"), key=lambda path: path.stat().st_size)
        path.write_bytes(path.read_bytes()[:-100])
    status, said = told(library.program("open.c"), bundle, "-").rstrip("\n").split("\t", 1)
    assert int(status) == Status.BUNDLE
    assert str(bundle) in said


def test_what_the_wrapper_refuses_by_itself(library: Library, tiny: Tiny) -> None:
    lines = [line.split("\t") for line in told(library.program("refused.cpp"), tiny.bundle).splitlines()]
    said = {
        "filter moved away": "the filter was moved away", "zero in an id": "a text has a zero within",
        "zero in a user": "a text has a zero within", "k beyond all": "a k of 1 to ",
        "engine moved away": "engine is NULL",
    }  # fmt: skip
    assert [name for name, _ in lines] == list(said)
    for name, refused in lines:
        assert refused.startswith(f"{Status.INVALID.value} "), name
        assert said[name] in refused
