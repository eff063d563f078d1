"""What infer is asked of lists: how many, of which items, and drawn how."""

import json
from pathlib import Path
from typing import Any

import pytest

from command_cases import asked
from commands import good, lines, same_items, user, write
from specbeam.cli import main
from tiny_bundle import ENGINE, Tiny

VERBS = [
    "export", "build-engine", "tune", "infer", "explain", "train", "align", "evaluate", "inspect", "demo", "generate",
    "build-pool", "group-users", "group-items", "doctor", "bench", "serve", "catalog", "model",
    "package-triton",
]  # fmt: skip


def test_k_beyond_the_catalog_is_all_of_it(tiny: Tiny, histories: Path, output: Path) -> None:
    result = good("infer", tiny.bundle, histories, "-o", output, "-k", 200)
    for line in lines(output):
        assert sorted(names(line)) == sorted(tiny.item_ids)
        assert line["available"] == 40
    assert "6 lists are short: fewer items are allowed than were asked for" in result.stdout
    good("infer", tiny.bundle, histories, "-o", output, "-k", 40, "--overwrite")
    assert not any("available" in line for line in lines(output))


def names(line: dict[str, Any]) -> list[str]:
    return [item["item"] for item in line["items"]]


@pytest.mark.parametrize("mode", [[], ["--verify", "relaxed"], ["--verify", "sampled", "--draft-width", 9]])
def test_requests_say_how_many_items_they_want_and_which(
    tiny: Tiny, output: Path, tmp_path: Path, mode: list[object]
) -> None:
    source = write(tmp_path / "histories.jsonl", *asked(tiny))
    result = good("infer", tiny.bundle, source, "-o", output, "-k", 4, *mode)
    served = lines(output)
    assert [len(line["items"]) for line in served] == [4, 1, 30, 5, 3, 0, 2]
    assert [line.get("available") for line in served] == [None, None, None, None, 3, 0, None]
    assert list(served[4]) == ["user", "line", "items", "available"]
    assert set(names(served[3])) == set(tiny.item_ids[10:15])
    assert set(names(served[4])) == set(tiny.item_ids[12:15])
    assert set(names(served[6])) < set(tiny.item_ids[10:15])
    if not mode:
        for number, k in ((0, 4), (1, 1), (2, 30)):  # beside others, a list is what it is alone
            single = alone(tiny, tmp_path, user("u", *asked(tiny)[number]["items"]), "-k", k)
            assert same_items(served[number]["items"], single["items"])
        expected = [item for item in names(alone(tiny, tmp_path, user("few", "3"))) if item in tiny.item_ids[10:15]]
        assert names(served[3]) == expected
    assert "2 lists are short: fewer items are allowed than were asked for" in result.stdout
    assert "rejected" not in result.stdout


def alone(tiny: Tiny, folder: Path, request: dict[str, Any], *options: object) -> dict[str, Any]:
    """One request's ranking, of the whole catalog unless an option says otherwise."""
    source = write(folder / "one.jsonl", request)
    good("infer", tiny.bundle, source, "-o", folder / "one.out", "-k", 40, "--overwrite", *options)
    (line,) = lines(folder / "one.out")
    return line


def test_a_number_that_cannot_be_is_rejected_and_the_run_goes_on(tiny: Tiny, output: Path, tmp_path: Path) -> None:
    numbers = [0, -1, "x", 1.5, 10**9, 10**40, 201]
    wanted = user("last", "1") | {"k": 201, "allow": ["3", "2"], "deny": ["4"]}
    source = write(tmp_path / "h.jsonl", user("a", "1"), *(user("u", "1") | {"k": k} for k in numbers), wanted)
    with source.open("a") as file:
        file.write(json.dumps(user("b", "1")))
    good("infer", tiny.bundle, source, "-o", output, "-k", 3)
    assert [line["user"] for line in lines(output)] == ["a", "b"]
    rejects = lines(output.with_name("recs.jsonl.rejects.jsonl"))
    assert [reject["line"] for reject in rejects] == [2, 3, 4, 5, 6, 7, 8, 9]
    reasons = [reject["reason"] for reject in rejects]
    for reason, part in zip(reasons, ["`int` >= 1", "`int` >= 1", "got `str`", "got `float`"], strict=False):
        assert part in reason
        assert '- at `$.k`; expected {"user": "u1", "items": ["11", ...]}' in reason
    for reason, k in zip(reasons[4:], [10**9, 10**40, 201, 201], strict=True):
        assert f"k is {k}, but this bundle serves lists of at most 200 items. Ask for fewer" in reason
    # mended, a rejected line asks for the same again
    assert json.loads(rejects[-1]["raw"]) == wanted | {"allow": ["2", "3"]}


def test_lists_of_items_for_all_requests(tiny: Tiny, histories: Path, output: Path, tmp_path: Path) -> None:
    allow, deny = tmp_path / "allow.txt", tmp_path / "deny.txt"
    allow.write_text("\n".join([*tiny.item_ids[:12], "?", "!"]) + "\n")
    deny.write_text("0\r\n\r\n5\r\n")
    options = ["--allow", allow, "--deny", deny, "--exclude-history"]
    result = good("infer", tiny.bundle, histories, "-o", output, "-k", 10, *options)
    assert f"{allow}: 2 of 14 items are not in the catalog (e.g. '!'); they are ignored" in result.stderr
    assert str(deny) not in result.stderr
    for entry, line in zip(lines(histories), lines(output), strict=True):
        allowed = set(tiny.item_ids[:12]) - {"0", "5"} - set(entry["items"])
        ranking = names(alone(tiny, tmp_path, user(entry["user"], *entry["items"])))
        assert names(line) == [item for item in ranking if item in allowed]
        assert line.get("available") == (len(allowed) if len(allowed) < 10 else None)
    short = sum("available" in line for line in lines(output))
    assert 0 < short < 6
    assert f"{short} lists are short" in result.stdout
    # ... on top of what a request says itself
    request = user("u", "20") | {"allow": ["1", "2", "5", "30"], "deny": ["1"]}
    assert names(alone(tiny, tmp_path, request, *options)) == ["2"]


def test_excluding_the_history_is_denying_it(tiny: Tiny, histories: Path, output: Path, tmp_path: Path) -> None:
    good("infer", tiny.bundle, histories, "-o", output, "--exclude-history", "-k", 38)
    denied = write(tmp_path / "denied.jsonl", *(entry | {"deny": entry["items"]} for entry in lines(histories)))
    good("infer", tiny.bundle, denied, "-o", tmp_path / "b.jsonl", "-k", 38, "--drafter", "none")
    asked = write(tmp_path / "asked.jsonl", *(entry | {"exclude_history": True} for entry in lines(histories)))
    good("infer", tiny.bundle, asked, "-o", tmp_path / "c.jsonl", "-k", 38)
    for a, *others in zip(*(lines(tmp_path / name) for name in (output.name, "b.jsonl", "c.jsonl")), strict=True):
        for b in others:
            assert same_items(a["items"], b["items"])
            assert a.get("available") == b.get("available")


@pytest.mark.parametrize("mode", ["sampled", "relaxed"])
def test_a_seed_draws_the_same_lists_again(tiny: Tiny, output: Path, tmp_path: Path, mode: str) -> None:
    entries = [user(f"u{i}", *map(str, range(i % 5, i % 5 + 1 + i % 3))) for i in range(20)]

    def drawn(entries: list[dict[str, Any]], seed: int | None, batch_size: int) -> dict[str, list[str]]:
        source = write(tmp_path / "h.jsonl", *entries)
        options = ["--verify", mode, "--batch-size", batch_size, *([] if seed is None else ["--seed", seed])]
        good("infer", tiny.bundle, source, "-o", output, "-k", 5, "--overwrite", *options)
        return {line["user"]: names(line) for line in lines(output)}

    lists = drawn(entries, 3, 8)
    assert drawn(entries, 3, 8) == lists
    for batch_size in (1, 5, 20):
        assert drawn(entries, 3, batch_size) == lists
    assert drawn(entries[::-1], 3, 8) == lists  # by the user's name, not by the place in the file
    assert drawn(entries, 4, 8) != lists
    assert drawn(entries, None, 8) == drawn(entries, 0, 8) != lists
    renamed = drawn([entry | {"user": f"x{i}"} for i, entry in enumerate(entries)], 3, 8)
    assert list(renamed.values()) != list(lists.values())


def test_the_temperature_of_a_draw(tiny: Tiny, output: Path, tmp_path: Path) -> None:
    """Cold enough, the draw is the strict list; hot, it is not."""
    entries = [user(f"u{i}", "1", "2") for i in range(10)]
    source = write(tmp_path / "h.jsonl", *entries)
    best = names(alone(tiny, tmp_path, entries[0], "--scoring", "constrained"))
    for temperature, same in ((1e-5, True), (5.0, False)):
        options = ["--verify", "sampled", "--temperature", temperature, "--overwrite"]
        good("infer", tiny.bundle, source, "-o", output, "-k", 1, *options)
        assert ([names(line) for line in lines(output)] == [best[:1]] * 10) == same


def test_formats(tiny: Tiny, output: Path, tmp_path: Path) -> None:
    train, valid = tmp_path / "sequential_train.txt", tmp_path / "sequential_valid.txt"
    train.write_text("7 1 2\n8 3\n")
    valid.write_text("7 5\n8\n")
    (tmp_path / "plain").write_text(json.dumps(user("7", "0", "1", "4")) + "\n" + json.dumps(user("8", "2")) + "\n")
    (tmp_path / "x.csv").write_text('user_id,history_item_id\n7,"[0, 1, 4]"\n8,[2]\n')
    (tmp_path / "x.inter.json").write_text('{"7": [0, 1, 4],\n "8": [2]}')
    found = []
    for arguments in (
        [train, valid, "--item-base", 1], [tmp_path / "plain", "--format", "jsonl"], [tmp_path / "x.csv"],
        [tmp_path / "x.inter.json"],
    ):  # fmt: skip
        good("infer", tiny.bundle, *arguments, "-o", output, "--overwrite", "-k", 6)
        found.append([(line["user"], [item["item"] for item in line["items"]]) for line in lines(output)])
    assert found[0][0][0] == "7"
    assert found[1:] == found[:1] * 3


def test_inspect(tiny: Tiny) -> None:
    text = good("inspect", tiny.bundle).stdout
    assert f"engine     {ENGINE}" in text
    assert "40 items" in text
    content = json.loads(good("inspect", tiny.bundle, "--json").stdout)
    assert content["manifest"]["items"] == 40
    assert list(content["engines"]) == [ENGINE]


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_examples(verb: str) -> None:
    text = good(verb, "--help").stdout
    assert "Example" in text
    assert f"  specbeam {verb} " in text
    assert good(verb, "-h").stdout == text


def test_help_of_the_whole() -> None:
    text = good("--help").stdout
    assert all(f"\n  {verb} " in text for verb in VERBS)
    assert "specbeam infer bundle histories.jsonl --output recs.jsonl" in text
    assert set(VERBS) == set(main.commands)
