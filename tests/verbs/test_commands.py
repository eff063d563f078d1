"""The command line: export, build-engine, infer and inspect as a user runs them."""

import json
from pathlib import Path

import pytest

from commands import good, lines, same_items, user, write
from specbeam.runtime import Recommender
from tiny_bundle import ENGINE, Tiny


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
