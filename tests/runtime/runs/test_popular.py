"""Users without a usable history: rejects, or what is popular with others."""

import json
from pathlib import Path
from typing import Any

import pytest

from commands import bad, good, lines, run, user, write
from specbeam.engines.bundle.items import Bundle
from specbeam.pools.items.pool import ItemPool
from specbeam.runtime.runs.popular import PopularItems
from tiny_bundle import Tiny


@pytest.fixture
def newcomers(tmp_path: Path) -> Path:
    """Users without a history, with one of unknown items, and with one; and a line that is no request."""
    return write(
        tmp_path / "h.jsonl", user("new"), user("old", "1", "2"), user("strange", "x"), {**user("picky"), "k": 2},
        {**user("limited"), "allow": ["5", "9"], "deny": ["9"]}, {**user("greedy"), "k": 10**6}, "no request",
    )  # fmt: skip


def served(output: Path) -> dict[str, Any]:
    return {line["user"]: line for line in lines(output)}


def ids(line: Any) -> list[str]:
    return [item["item"] for item in line["items"]]


def test_they_are_rejects_unless_it_is_said_otherwise(tiny: Tiny, newcomers: Path, output: Path) -> None:
    good("infer", tiny.bundle, newcomers, "-o", output, "--threads", 1)
    assert list(served(output)) == ["old"]
    reasons = [line["reason"] for line in lines(Path(f"{output}.rejects.jsonl"))]
    assert len(reasons) == 6
    assert reasons[0] == "the history of user new is empty; expected at least one item"


def test_they_get_what_a_file_says(tiny: Tiny, newcomers: Path, output: Path, tmp_path: Path) -> None:
    popular = tmp_path / "popular.txt"
    popular.write_text("9\n7\nunknown\n7\n5\n\n3\n")
    command = [
        "infer",
        tiny.bundle,
        newcomers,
        "--when-empty",
        "popular",
        "--popular",
        popular,
        "-k",
        3,
        "--threads",
        1,
    ]
    result = good(*command, "-o", output)
    assert f"{popular}: 1 of 5 items are not in the catalog" in result.stderr
    assert "4 requests without a usable history got what is popular" in result.output
    got = served(output)
    assert ids(got["new"]) == ids(got["strange"]) == ["9", "7", "5"]
    assert ids(got["picky"]) == ["9", "7"]
    assert (ids(got["limited"]), got["limited"]["available"]) == (["5"], 1)
    assert [line.get("popular", False) for line in got.values()] == [True, False, True, True, True]
    assert list(got) == ["new", "old", "strange", "picky", "limited"]  # the input's order
    assert set(got["new"]["items"][0]) == {"item", "title", "identifier"}  # no model has scored it
    rejects = lines(Path(f"{output}.rejects.jsonl"))
    assert [line["line"] for line in rejects] == [6, 7]
    assert "1000000" in rejects[0]["reason"]
    good(*command, "-o", tmp_path / "denied", "--deny", write(tmp_path / "deny", "7"))
    assert ids(served(tmp_path / "denied")["new"]) == ["9", "5", "3"]


@pytest.mark.parametrize("format", ["lcrec", "parquet"])
def test_every_format_may_have_them(tiny: Tiny, output: Path, tmp_path: Path, format: str) -> None:
    histories = tmp_path / ("h.inter.json" if format == "lcrec" else "h.parquet")
    if format == "lcrec":
        histories.write_text(json.dumps({"u1": ["1"], "u2": []}))
    else:
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({"user": ["u1", "u2"], "items": [["1"], []]}), histories)
    popular = write(tmp_path / "popular.txt", "9")
    good("infer", tiny.bundle, histories, "-o", output, "--when-empty", "popular", "--popular", popular, "--threads", 1)
    assert ids(served(output)["u2"]) == ["9"]


def test_they_get_what_a_pool_counts(tiny: Tiny, newcomers: Path, output: Path, tmp_path: Path) -> None:
    others = write(tmp_path / "others.jsonl", user("a", "4", "8", "4"), user("b", "8", "4"), user("c", "12", "gone"))
    good("build-pool", "--items", others, "--output", tmp_path / "pool")
    options = ["--pool", tmp_path / "pool", "--drafter", "both", "--when-empty", "popular", "-k", 5, "--threads", 1]
    result = run("infer", tiny.bundle, newcomers, "-o", output, *options)
    assert result.exit_code == 0, result.output
    line = served(output)["new"]
    assert ids(line) == ["4", "8", "12"]
    assert line["available"] == 3
    other = write(tmp_path / "foreign.jsonl", user("a", "x", "y"))
    good("build-pool", "--items", other, "--output", tmp_path / "foreign")
    with pytest.raises(Exception, match="no item of the catalog in it"):
        PopularItems.of_pool(ItemPool.open(tmp_path / "foreign"), Bundle.open(tiny.bundle).catalog())


def test_options_that_mean_nothing_together(tiny: Tiny, newcomers: Path, output: Path, tmp_path: Path) -> None:
    command = ["infer", tiny.bundle, newcomers, "-o", output]
    assert "--when-empty popular: by what?" in bad(*command, "--when-empty", "popular")
    assert "for --when-empty popular only" in bad(*command, "--popular", newcomers)
    assert "cannot be read: No such file" in bad(*command, "--when-empty", "popular", "--popular", tmp_path / "x")
    empty = tmp_path / "empty"
    empty.write_text("\n")
    assert "no item of the catalog in it (got an empty file)" in bad(
        *command, "--when-empty", "popular", "--popular", empty
    )
