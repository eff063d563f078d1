"""The pictures of an explanation, and the command that draws them."""

import struct
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import run as start
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from commands import bad, good, only
from explain_cases import (
    FIRST,
    SECOND,
    explanation,
    texts,
)
from scripted_recommender import make
from specbeam.catalog.errors import SpecBeamError
from specbeam.catalog.extras import install
from specbeam.evaluate.explain import explain, rows
from specbeam.evaluate.tree_listing import TITLE, listing, pixels, told_apart
from specbeam.evaluate.tree_picture import STYLES, TOP, chart, save
from specbeam.runtime import EngineChoice, Recommender
from specbeam.runtime.options import Verification
from tiny_bundle import Tiny


@st.composite
def trees(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parents, depths and heights, by depth and then by parent."""
    levels, parent, depth = [[0]], [-1], [0]
    for level in range(1, draw(st.integers(1, 4))):
        above = sorted(draw(st.lists(st.sampled_from(levels[-1]), min_size=1, max_size=12)))
        levels.append(list(range(len(parent), len(parent) + len(above))))
        parent += above
        depth += [level] * len(above)
    heights = draw(st.lists(st.floats(1, 40), min_size=len(parent), max_size=len(parent)))
    return np.array(parent), np.array(depth), np.array(heights)


@given(trees())
def test_no_two_nodes_of_a_depth_touch(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    parent, depth, height = drawn
    y = rows(parent, depth, height)
    for level in (np.flatnonzero(depth == d) for d in range(depth.max() + 1)):
        assert (np.diff(y[level]) >= (height[level][1:] + height[level][:-1]) / 2 - 1e-9).all()
    assert (y - height / 2 >= -1e-9).all()
    for node in range(len(parent)):
        below = y[parent == node]
        assert not len(below) or below[0] - 1e-9 <= y[node] <= below[-1] + 40


def test_an_svg_says_what_happened(tmp_path: Path) -> None:
    facts = explanation(FIRST, SECOND)
    save(chart(facts), tmp_path / "tree.svg")
    said = texts(tmp_path / "tree.svg")
    for text in (
        "A", "Apple & pear", "E", "Elder & fig", "these 2 items have one identifier", "C", facts.headline,
        "Cherry <red>", "1 of 2 drafted", "2 of 2 drafted",
        "target call 2", "2 nodes (1 accepted, 1 missed before), then the search is done", "depth 3",
        "4 nodes (2 accepted, 2 in vain), then 1 missing at depth 1",
    ):  # fmt: skip
        assert text in said
    assert said.count("b1") == 2  # nodes in vain have no label
    assert {STYLES[status].label for status in ("accepted", "missed", "vain", "item")} <= set(said)
    assert STYLES["single"].label not in said


def test_without_titles_there_is_no_column_for_them(tmp_path: Path) -> None:
    facts = explanation(FIRST, SECOND)
    bare = replace(facts, items=tuple(structs.replace(item, title=None) for item in facts.items))
    alone = replace(bare, items=bare.items[::2], leaves=bare.leaves[::2], sharing=(1, 1))
    widths = [chart(shown).vconcat[1].width for shown in (facts, bare, alone)]
    note = pixels("these 2 items have one identifier")
    assert widths[0] - widths[1] == pytest.approx(TITLE - note, abs=1)
    assert widths[0] - widths[2] == TITLE
    for shown in (bare, alone):
        save(chart(shown), tmp_path / "tree.svg", overwrite=True)
        said = texts(tmp_path / "tree.svg")
        assert {"item", "score", "A", "C"} <= set(said)
        assert "title" not in said
    part = replace(facts, items=(*bare.items[:2], facts.items[2]))  # one has a title
    assert chart(part).vconcat[1].width == widths[0]


def test_titles_are_told_apart() -> None:
    same = "Bundle Monster Nail Art Nailart Polish Stamp Stamping Manicure Image Plates Accessories Set Kit " * 2
    shown = told_apart([same + "25 pieces, blue", same + "25 pieces, red", "short", "", same + "25 pieces, red"])
    assert shown[2:4] == [("short",), ()]
    assert [lines[-1].endswith(colour) for lines, colour in zip(shown[:2], ("blue", "red"), strict=True)] == [
        True,
        True,
    ]
    assert shown[1] == shown[4]  # the same title: ids tell them apart
    assert all(len(lines) <= 2 and pixels(line) <= TITLE + 6 for lines in shown for line in lines)
    wide = told_apart(["爪" * 200])[0]
    assert len(wide) == 2
    assert wide[-1].endswith("…")
    assert all(pixels(line) <= TITLE for line in wide)


def test_shared_identifiers_are_explained(tmp_path: Path) -> None:
    facts = explanation(FIRST, SECOND)
    assert facts.sharing == (2, 2, 1)
    assert "Items that share an identifier" in facts.introduction[-1]
    listed = listing(replace(facts, sharing=(5, 5, 2)))
    assert [leaf.note for leaf in listed.values()] == [
        "these 2 items have one identifier; 3 more items of the catalog share it",
        "its identifier: 1 more item of the catalog shares it",
    ]
    alone = replace(facts, items=facts.items[::2], leaves=facts.leaves[::2], sharing=(1, 1))
    assert not any(leaf.note for leaf in listing(alone).values())
    assert not any("share" in line for line in alone.introduction)


def test_a_png_has_two_pixels_for_each_of_the_svg_s(tmp_path: Path) -> None:
    picture = chart(explanation(FIRST, SECOND))
    save(picture, tmp_path / "tree.PNG")
    save(picture, tmp_path / "tree.svg")
    content = (tmp_path / "tree.PNG").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    size = struct.unpack(">II", content[16:24])
    svg = ElementTree.parse(tmp_path / "tree.svg").getroot()
    assert size == pytest.approx([2 * float(svg.attrib[name]) for name in ("width", "height")], abs=2)
    assert size[1] > 2 * TOP


def test_an_html_needs_no_network(tmp_path: Path) -> None:
    save(chart(explanation(FIRST, SECOND)), tmp_path / "tree.html")
    content = (tmp_path / "tree.html").read_text("utf-8")
    assert "<script" in content
    assert "src=" not in "".join(part.partition(">")[0] for part in content.split("<script")[1:])
    assert "<link" not in content
    assert "cdn." not in content
    assert "Apple & pear" in content or "Apple \\u0026 pear" in content


def test_other_suffixes_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(SpecBeamError, match=r"got the suffix '.gif'; expected one of .html, .svg, .png"):
        save(chart(explanation(FIRST, SECOND)), tmp_path / "tree.gif")
    with pytest.raises(SpecBeamError, match="got the suffix ''"):
        save(chart(explanation(FIRST, SECOND)), tmp_path / "tree")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["runtime", "evaluate.explain", "cli"])
def test_nothing_else_loads_a_plotting_library(module: str) -> None:
    code = f"import sys, specbeam.{module}; print({{'altair', 'vl_convert'}} & set(sys.modules))"
    assert start([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_the_command_draws_what_infer_would_recommend(tiny: Tiny, tmp_path: Path) -> None:
    outputs = [tmp_path / f"tree.{suffix}" for suffix in ("svg", "html")]
    flags = [part for output in outputs for part in ("-o", output)]
    result = good(
        "explain", tiny.bundle, "--history", "2, 4,unheard-of", *flags, "--top-k", 6, "--draft-width", 4, "--threads", 1
    )
    assert "Left out of the history, because the catalog lacks them: unheard-of" in result.stderr
    assert "target call" in result.stdout
    assert f"Wrote {outputs[0]}, {outputs[1]}" in result.stdout
    said = texts(outputs[0])
    assert result.stdout.splitlines()[0] in said
    assert sum(text.startswith("Title ") or text in tiny.item_ids for text in said) >= 6
    answer = Recommender.open(tiny.bundle, engine=EngineChoice(threads=1)).recommend([["2", "4"]], 6)[0]
    assert {item.item for item in answer.items} <= set(said)
    assert any("(1 item left out: not in the catalog)" in text for text in said)
    assert outputs[1].stat().st_size > 100_000


def test_the_command_refuses_before_it_works(tiny: Tiny, tmp_path: Path) -> None:
    output = tmp_path / "tree.svg"
    assert "got the suffix '.pdf'" in bad("explain", tmp_path, "--history", "1", "-o", tmp_path / "tree.pdf")
    assert "'nobody'" in bad("explain", tiny.bundle, "--history", "nobody", "-o", output)
    only(output)
    output.write_text("mine")
    assert "exists already" in bad("explain", tmp_path, "--history", "1", "-o", output)
    good("explain", tiny.bundle, "--history", "1", "-o", output, "--overwrite", "--speculation", "fixed")
    assert "Top 10 for a history of 1 item: item 1" in texts(output)


def test_the_command_names_the_missing_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "specbeam.evaluate.tree_picture", raising=False)
    monkeypatch.setitem(sys.modules, "altair", None)
    message = bad("explain", tmp_path, "--history", "1", "-o", tmp_path / "tree.svg")
    assert f"altair is not installed. Run: {install('explain')}" in message


def test_a_title_can_neither_end_the_page_s_script_nor_stop_the_renderer(tmp_path: Path) -> None:
    facts = explanation(FIRST, SECOND)
    hostile = "</script><script>x()</script><!-- \x00\x07\x1b[31m"
    facts = replace(facts, items=tuple(structs.replace(item, title=hostile) for item in facts.items))
    for suffix in ("html", "svg", "png"):
        save(chart(facts), tmp_path / f"tree.{suffix}")
    content = (tmp_path / "tree.html").read_text("utf-8")
    assert "<script>x" in content  # as a text
    assert "</script><script>x" not in content
    assert any("[31m" in text for text in texts(tmp_path / "tree.svg"))


def test_where_the_target_is_never_asked_there_is_nothing_to_draw() -> None:
    recommender = make(np.array([[11, 12]]), verification=Verification(scoring="constrained"))
    with pytest.raises(SpecBeamError, match="nothing to draw"):
        explain(recommender, ["i0"], 3)
