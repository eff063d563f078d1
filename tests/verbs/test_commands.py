"""The command line: export, build-engine, infer and inspect as a user runs them."""

import json
from pathlib import Path
from typing import Any

import pytest

from commands import good, lines, same_items, user, write
from specbeam.cli import main
from specbeam.runtime import Recommender
from tiny_bundle import ENGINE, Tiny

VERBS = [
    "export", "build-engine", "tune", "infer", "explain", "train", "align", "evaluate", "inspect", "demo", "generate",
    "build-pool", "group-users", "group-items", "doctor",
]  # fmt: skip


def test_export_and_build_say_what_comes_next(tiny: Tiny) -> None:
    assert f"Wrote {tiny.bundle}. Next: specbeam build-engine {tiny.bundle}" in tiny.export_output
    for stage in ("reading the catalog", "exporting the target's graph", "comparing the draft's graph with its model"):
        assert stage in tiny.export_output
    assert f"Built {tiny.bundle / 'engines' / ENGINE}. Next: specbeam infer {tiny.bundle}" in tiny.build_output


def test_infer_writes_one_line_a_request_in_the_input_s_order(tiny: Tiny, histories: Path, output: Path) -> None:
    result = good("infer", tiny.bundle, histories, "--output", output, "--top-k", 5, "--batch-size", 4)
    asked, written = lines(histories), lines(output)
    assert [line["user"] for line in written] == [entry["user"] for entry in asked]
    assert [line["line"] for line in written] == [1, 2, 3, 4, 5, 6]
    expected = Recommender.open(tiny.bundle).recommend([entry["items"] for entry in asked], 5)
    for line, wanted in zip(written, expected, strict=True):
        assert list(line) == ["user", "line", "items"]
        assert [list(item) for item in line["items"]] == [["item", "title", "score", "identifier"]] * 5
        assert [item["item"] for item in line["items"]] == [item.item for item in wanted.items]
        assert [item["score"] for item in line["items"]] == pytest.approx(
            [item.score for item in wanted.items], abs=1e-4
        )
    index = json.loads(tiny.index.read_text())
    for item in (item for line in written for item in line["items"]):
        assert item["identifier"] == index[item["item"]]
        assert item["title"] == (None if int(item["item"]) % 2 else f"Title {item['item']}")
    assert [path.name for path in output.parent.iterdir() if "rejects" in path.name] == []
    assert output.read_bytes().endswith(b"\n")
    assert "6 requests in " in result.stdout
    assert "requests/s" in result.stdout
    assert "target calls a request" in result.stdout
    assert "(plain beam search: up to 3)" in result.stdout
    assert "rejected" not in result.stdout
    assert "short" not in result.stdout


def test_stats_and_no_drafter(tiny: Tiny, histories: Path, output: Path, tmp_path: Path) -> None:
    result = good("infer", tiny.bundle, histories, "-o", output, "--stats", "--draft-width", 4, "--draft-length", 1)
    assert "by depth: 1: " in result.stdout
    plain = tmp_path / "plain.jsonl"
    good("infer", tiny.bundle, histories, "-o", plain, "--stats", "--drafter", "none")
    for fast, slow in zip(lines(output), lines(plain), strict=True):
        assert list(fast) == ["user", "line", "items", "stats"]
        assert list(fast["stats"]) == ["target_calls", "draft_calls", "nodes_evaluated"]
        assert 1 <= fast["stats"]["target_calls"] <= 3
        assert fast["stats"]["draft_calls"] >= 1
        assert fast["stats"]["nodes_evaluated"] >= 1
        assert slow["stats"]["target_calls"] == 3
        assert slow["stats"]["draft_calls"] == 0
        assert same_items(fast["items"], slow["items"])


def test_limit(tiny: Tiny, histories: Path, output: Path) -> None:
    result = good("infer", tiny.bundle, histories, "-o", output, "--limit", 2)
    assert [line["user"] for line in lines(output)] == ["u0", "u1"]
    assert "2 requests in " in result.stdout


def test_the_torch_engine_gives_the_same_lists(tiny: Tiny, histories: Path, output: Path, tmp_path: Path) -> None:
    good("infer", tiny.bundle, histories, "-o", output)
    good("infer", tiny.bundle, histories, "-o", tmp_path / "torch.jsonl", "--engine", "torch-cpu-fp32", "--limit", 3)
    for a, b in zip(lines(output)[:3], lines(tmp_path / "torch.jsonl"), strict=True):
        assert same_items(a["items"], b["items"])


def test_unusable_lines_are_rejected_and_the_run_goes_on(tiny: Tiny, output: Path, tmp_path: Path) -> None:
    source = write(
        tmp_path / "histories.jsonl",
        user("first", "1", "2"),
        '{"user": "cut", "items": ["1", ',
        user("empty"),
        "",
        user("strangers", "x", "y"),
        '{"user": "no items"}',
        '["a", "b"]',
        user("mixed", "3", "x", 4, "y"),
        user("first", "1", "2"),
    )
    result = good("infer", tiny.bundle, source, "-o", output, "-k", 3)
    served = lines(output)
    assert [(line["user"], line["line"]) for line in served] == [("first", 1), ("mixed", 8), ("first", 9)]
    assert same_items(served[0]["items"], served[2]["items"])
    rejects = lines(output.with_name("recs.jsonl.rejects.jsonl"))
    assert [list(reject) for reject in rejects] == [["file", "line", "reason", "raw"]] * 5
    assert {reject["file"] for reject in rejects} == {str(source)}
    assert sorted(reject["line"] for reject in rejects) == [2, 3, 5, 6, 7]
    reasons = {reject["line"]: reject["reason"] for reject in rejects}
    assert "truncated" in reasons[2]
    assert "empty; expected at least one item" in reasons[3]
    assert "none of its 2 items is in the catalog (e.g. 'x', 'y'). Expected item ids" in reasons[5]
    assert "`items`" in reasons[6]
    assert 'expected {"user": "u1", "items": ["11", ...]}' in reasons[7]
    raw = {reject["line"]: reject["raw"] for reject in rejects}
    assert raw[2] == '{"user": "cut", "items": ["1", '
    assert json.loads(raw[5]) == user("strangers", "x", "y")
    assert "3 requests in " in result.stdout
    assert "2 items of the histories are not in the catalog and were dropped" in result.stdout
    assert f"5 lines were rejected: see {output}.rejects.jsonl" in result.stdout


def test_rejects_can_hold_what_is_not_text(tiny: Tiny, output: Path, tmp_path: Path) -> None:
    """Half a surrogate pair is valid JSON, and no item of the catalog."""
    source = tmp_path / "users.inter.json"
    source.write_text('{"1": ["\\ud800", "é"], "2": [5]}')
    good("infer", tiny.bundle, source, "-o", output)
    (reject,) = lines(output.with_name("recs.jsonl.rejects.jsonl"))
    assert "none of its 2 items" in reject["reason"]
    assert json.loads(reject["raw"]) == user("1", "\ud800", "é")
    assert "é" in reject["raw"]


def test_long_histories_are_shortened_and_counted(tiny: Tiny, output: Path, tmp_path: Path) -> None:
    ids = tiny.item_ids
    source = write(
        tmp_path / "histories.jsonl", user("long", *ids[:30]), user("cut", *ids[21:30]), user("ten", *ids[:10])
    )
    result = good("infer", tiny.bundle, source, "-o", output, "-k", 4)
    long, cut, _ = lines(output)
    assert same_items(long["items"], cut["items"])
    assert "2 histories were shortened to the model's context" in result.stdout


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


def asked(tiny: Tiny) -> list[dict[str, Any]]:
    """Requests that say how many items they want and which; the last has an unknown id in its list."""
    few = tiny.item_ids[10:15]
    return [
        user("plain", "1", "2"), user("one", "3") | {"k": 1}, user("many", "1", "2") | {"k": 30},
        user("few", "3") | {"k": 5, "allow": few}, user("fewer", "3") | {"k": 5, "allow": few, "deny": [10, "11"]},
        user("none", "4") | {"allow": []}, user("odd", "4") | {"k": 2, "allow": ["?", *few], "deny": ["!"]},
    ]  # fmt: skip


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
