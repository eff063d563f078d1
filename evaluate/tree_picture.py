"""An explanation as a picture: the target's calls, the draft tree, and both sides' scores of every drafted node."""

import math
from collections.abc import Sequence
from io import BytesIO, StringIO
from pathlib import Path
from textwrap import wrap
from typing import Any, Final, NamedTuple

import altair as alt
import numpy as np
import vl_convert  # noqa: F401 (Altair draws .svg and .png with it, and asks for it only then)

from ..catalog.errors import SpecBeamError
from ..catalog.files import whole_file
from ..runtime.types import Int64
from .explain import NEEDED, ExplainedNode, Explanation, Status, counted, named, rows, shortened
from .tree_listing import GAP, PITCH, TITLE, Leaf, listing, pixels, titled

KINDS: Final = (".html", ".svg", ".png")
COLUMN = 124  # pixels from depth to depth
LEFT, TOP = 20, 42  # pixels: left of the prompt; above the tree, for what is said of every depth
RANK, IDENT, SCORE = 30, 38, 44  # pixels: from the last depth to a rank's end and an id; width of a score
LINE = 100  # letters of the headline that always fit a line: the legend is about as wide
PANEL = 280  # pixels: each side of a panel of scores
LABEL, LETTER = 10, 6.0  # letters of a token that are shown, and about what each takes in pixels
INK, PALE = "#333333", "#777777"
FONT = "Arial, Helvetica, Liberation Sans, DejaVu Sans, sans-serif"
Row = dict[str, Any]  # of a chart's data


class Style(NamedTuple):
    """How the nodes of one status look: they differ in form and in brightness, too, not only in colour."""

    label: str
    short: str
    colour: str  # of Okabe and Ito's palette, which the colour-blind can tell apart
    shape: str
    area: int  # square pixels
    height: float  # pixels that a node takes by itself, across the depths


STYLES: Final[dict[Status, Style]] = {
    "prompt": Style("prompt", "", "#000000", "square", 70, 14),
    "accepted": Style("accepted: needed, and drafted", "accepted", "#0072B2", "circle", 46, 13),
    "stand-in": Style("stand-in: accepted for a better one", "stand-ins", "#56B4E9", "triangle-up", 60, 13),
    "ahead": Style("ahead: needed, and evaluated before", "ahead of need", "#56B4E9", "triangle-down", 60, 13),
    "missed": Style("missed: needed, but not drafted", "missed before", "#D55E00", "diamond", 110, 13),
    "needed": Style("needed: the beam search goes on from it", "needed", "#555555", "circle", 46, 13),
    "single": Style("no choice: one continuation only", "without choice", "#CC79A7", "triangle-right", 60, 13),
    "vain": Style("in vain: evaluated, but not needed", "in vain", "#BBBBBB", "circle", 9, 3.5),
    "item": Style("recommended item", "recommended", "#009E73", "square", 46, 15),
}
LEGEND: Final = alt.Legend(
    title=None, orient="top", direction="horizontal", columns=5, offset=10, columnPadding=24, rowPadding=4,
    labelLimit=0, labelFontSize=12, labelColor=INK, symbolSize=70, symbolStrokeWidth=0,
)  # fmt: skip
TOOLTIP: Final = [
    alt.Tooltip(f"{fact}:N", title=title)
    for fact, title in {
        "prefix": "prefix", "status": "status", "target": "target's score", "draft": "draft's score",
        "beam": "rank in the beam", "drafted": "rank in the draft", "call": "evaluated in target call",
        "titles": "items",
    }.items()
]  # fmt: skip


def chart(explanation: Explanation) -> alt.VConcatChart:
    """The picture, one specification for every kind of file.

    On top what became of the nodes of every target call; then the tree from the prompt on the left to the
    items on the right; then, where something was drafted, both sides' scores depth by depth.
    """
    told = (part for line in explanation.introduction for part in wrap(line, max(LINE, _width(explanation) // 6)))
    title = alt.TitleParams(
        wrap(explanation.headline, max(LINE, _width(explanation) // 9)), subtitle=list(told),
        anchor="start", fontSize=18, offset=14, subtitleFontSize=12, subtitleColor=PALE, subtitlePadding=8,
        subtitleLineHeight=17,
    )  # fmt: skip
    facts = _facts(explanation)
    config = alt.Config(
        font=FONT, background="white", view=alt.ViewConfig(stroke=None), title=alt.TitleConfig(color=INK),
        axis=alt.AxisConfig(labelColor=INK, titleColor=PALE, titleFontWeight="normal", gridColor="#EEEEEE"),
    )  # fmt: skip
    parts: list[alt.LayerChart | alt.ConcatChart] = [_calls(explanation), _tree(explanation, facts)]
    parts += _scores(explanation, facts)
    description = explanation.headline  # what a screen reader tells
    return alt.vconcat(*parts, title=title, description=description, spacing=28, padding=24, config=config)


def save(picture: alt.VConcatChart, path: Path, *, overwrite: bool = False) -> None:
    """Write a picture, whole or not at all, as its suffix says; an .html opens without a network.

    Raises `SpecBeamError` for a suffix of another kind.
    """
    check_kind(path)
    with whole_file(path, replace=overwrite) as file:
        file.write(drawn(picture, path.suffix.lower()))


def drawn(picture: alt.VConcatChart, kind: str) -> bytes:
    """A picture as a file of one of `KINDS`."""
    text, binary = StringIO(), BytesIO()
    picture = alt.VConcatChart.from_dict(_harmless(picture.to_dict()))
    match kind:
        case ".png":
            picture.save(binary, format="png", scale_factor=2)  # sharp on a dense screen
        case ".svg":
            picture.save(text, format="svg")
        case _:
            picture.save(text, format="html", inline=True, embed_options={"renderer": "svg", "actions": False})
    return binary.getvalue() or text.getvalue().encode()


def _harmless(value: Any) -> Any:
    """A specification whose texts (titles may hold anything) neither end a page's script nor stop the renderer."""
    if isinstance(value, dict):
        return {key: _harmless(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_harmless(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if not value.isprintable():
        value = "".join(c if c.isprintable() or c == "\n" else " " for c in value)
    return value.replace("</", "<\u2215").replace("<!", "<\u01c3")  # letters that look the same


def check_kind(path: Path) -> None:
    """Raises `SpecBeamError` unless the suffix names a kind of picture that `save` can write."""
    if path.suffix.lower() not in KINDS:
        raise SpecBeamError(f"{path}: got the suffix {path.suffix!r}; expected one of {', '.join(KINDS)}.")


def _facts(explanation: Explanation) -> list[Row]:
    """What is drawn and told of every node."""
    prefix = {explanation.nodes[0].parent: ""}
    titles: dict[int, list[str]] = {}
    for leaf, item in zip(explanation.leaves, explanation.items, strict=True):
        titles.setdefault(leaf, []).append(named(item.item, item.title))
    facts: list[Row] = []
    for i, node in enumerate(explanation.nodes):
        prefix[node.node] = f"{prefix[node.parent]} {node.token}".strip() if node.depth else ""
        facts.append({
            "place": i, "area": STYLES[node.status].area, "status": STYLES[node.status].label,
            "label": "" if node.status in ("prompt", "vain") else shortened(node.token, LABEL),
            "prefix": prefix[node.node] or node.token, "target": _number(node.target_score, "unknown"),
            "draft": _number(node.draft_score, "not drafted"), "beam": node.beam_rank or "not in it",
            "drafted": node.draft_rank or "not drafted", "call": node.call or "none",
            "titles": "; ".join(titles.get(node.node, ["none recommended" if node.depth else ""])),
        })  # fmt: skip
    return facts


def _calls(explanation: Explanation) -> alt.LayerChart:
    """A bar a target call: what became of the nodes it evaluated."""
    bars: list[Row] = []
    notes: list[Row] = []
    for number, call in enumerate(explanation.calls, 1):
        name, end, parts = f"target call {number}", 0, []
        for status, style in STYLES.items():
            size = sum(node.call == number and node.status == status for node in explanation.nodes if node.depth)
            if size:
                parts.append(f"{size} {style.short}")
                bars.append({"call": name, "start": end, "end": end + size, "status": style.label})
                end += size
        every = ", with every continuation" if call.enumerated else ""
        nodes = f"{counted(end, 'node')}{every} ({', '.join(parts)})" if parts else "the prompt alone"
        lacking = "missing" if explanation.count("missed", depth=call.depth) else "needed"
        then = f"{call.missing} {lacking} at depth {call.depth}" if call.missing else "the search is done"
        notes.append({"call": name, "start": end, "note": f"{nodes}, then {then}"})
    axis = alt.Axis(domain=False, ticks=False, labelPadding=8)
    y = alt.Y("call:N", title=None, sort=[note["call"] for note in notes], axis=axis)
    half = max(note["start"] for note in notes) or 1  # the other half of the width is for the notes
    x = alt.X("start:Q", axis=None, scale=alt.Scale(domain=[0, 2 * half], nice=False))
    bar, note = _chart(bars), _chart(notes)
    layers = [
        bar.mark_bar(height=15).encode(y=y, x=x, x2="end:Q", color=_look(explanation)[0]),
        note.mark_text(align="left", dx=8, color=INK).encode(y=y, x=x, text="note:N"),
    ]
    return alt.LayerChart(layer=layers, width=_width(explanation), height=24 * len(notes))


def _tree(explanation: Explanation, facts: list[Row]) -> alt.LayerChart:
    """The tree from left to right, and the items behind their leaves."""
    nodes = explanation.nodes
    place = {node.node: i for i, node in enumerate(nodes)}
    parent = np.array([place.get(node.parent, -1) for node in nodes])
    depth = np.array([node.depth for node in nodes])
    listed = listing(explanation)
    height = np.array([listed[n.node].height if n.node in listed else STYLES[n.status].height for n in nodes])
    x, y = LEFT + COLUMN * depth, TOP + rows(parent, depth, height)
    bottom = float((y + height / 2).max())
    points = [fact | {"x": int(x[i]), "y": float(y[i])} for i, fact in enumerate(facts)]
    texts = [
        *_headers(explanation),
        *(row for leaf in listed for row in _items(explanation, listed[leaf], y[place[leaf]])),
    ]
    across = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, _width(explanation)], nice=False))
    down = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[bottom, 0], nice=False))
    (colour, shape), area = _look(explanation), alt.Size("area:Q", scale=None)
    edge, point, text = (_chart(data) for data in (_edges(points, parent, explanation.length), points, texts))
    layers = [
        edge.mark_line(interpolate="basis", strokeWidth=1)
        .encode(x=across, y=down, detail="place:N", order="step:Q", color=colour),
        point.mark_point(filled=True, opacity=1)
        .encode(x=across, y=down, color=colour, shape=shape, size=area, tooltip=TOOLTIP),
        point.mark_text(align="right", dx=-7, fontSize=10, color=INK)
        .encode(x=across, y=down, text="label:N", tooltip=TOOLTIP),
        text.mark_text(
            fontSize=11, limit=TITLE + 12, align=alt.ExprRef("datum.align"), fontWeight=alt.ExprRef("datum.weight"),
            color=alt.ExprRef("datum.colour"),
        ).encode(x=across, y=down, text="text:N"),
    ]  # fmt: skip
    return alt.LayerChart(layer=layers, width=_width(explanation), height=bottom)


def _edges(points: list[Row], parent: Int64, length: int) -> list[Row]:
    """Four control points a node: out of its parent and into its label. Those in vain lie below the others.

    Leaves above the last depth get a line to the column of the items, too.
    """
    vain, item, last = STYLES["vain"].label, STYLES["item"].label, LEFT + COLUMN * length
    edges: list[Row] = []
    for point in sorted(points[1:], key=lambda point: bool(point["status"] != vain)):
        above, label = points[parent[point["place"]]], point["label"]
        start = above["x"] + (1 if above["status"] == vain else 5)
        end = point["x"] - (9 + LETTER * len(label) if label else 2)
        bend = start + COLUMN / 3
        curve = ((start, above["y"]), (bend, above["y"]), (bend, point["y"]), (end, point["y"]))
        edges += [
            {"place": point["place"], "status": point["status"], "step": step, "x": x, "y": y}
            for step, (x, y) in enumerate(curve)
        ]
        if point["status"] == item and point["x"] < last:
            line = {"place": -point["place"], "status": item, "y": point["y"]}
            edges += [line | {"step": step, "x": x} for step, x in enumerate((point["x"], last + 8))]
    return edges


def _headers(explanation: Explanation) -> list[Row]:
    """What stands above every depth."""
    last = LEFT + COLUMN * explanation.length
    headers = [
        _text(LEFT - 6, 8, "prompt", weight="bold"),
        _text(last + IDENT, 8, "item", weight="bold"),
        _text(_scored(explanation), 8, "score", "right", weight="bold"),
    ]
    if titled(listing(explanation)):
        headers.append(_text(last + _titles(explanation), 8, "title", weight="bold"))
    for depth in range(1, explanation.length + 1):
        x = LEFT + COLUMN * depth + 4
        headers.append(_text(x, 8, f"depth {depth}", "right", weight="bold"))
        if needed := explanation.count(*NEEDED, depth=depth):
            headers.append(_text(x, 24, _found(explanation, depth, needed), "right", colour=PALE))
    return headers


def _found(explanation: Explanation, depth: int, needed: int) -> str:
    """How many of the needed nodes of a depth had been evaluated by then, and why."""
    found = explanation.count("accepted", "stand-in", depth=depth)
    ahead = explanation.count("ahead", depth=depth)
    if found or explanation.count("missed", depth=depth):
        return f"{found} of {needed} drafted"
    return f"{ahead} of {needed} ahead" if ahead else f"{needed} needed"


def _items(explanation: Explanation, leaf: Leaf, y: float) -> list[Row]:
    """Rank, id, title and score of every item behind a leaf at y, and what they share."""
    last = LEFT + COLUMN * explanation.length
    titles = last + _titles(explanation)
    texts: list[Row] = []
    down = y - (leaf.height - GAP - PITCH) / 2
    for item in leaf.items:
        texts += [
            _text(last + RANK, down, str(item.rank), "right", colour=PALE), _text(last + IDENT, down, item.ident),
            _text(_scored(explanation), down, _number(item.score), "right"),
            *(_text(titles, down + PITCH * i, line) for i, line in enumerate(item.lines)),
        ]  # fmt: skip
        down += item.height
    return [*texts, _text(titles, down, leaf.note, colour=PALE)] if leaf.note else texts


def _text(x: float, y: float, text: str, align: str = "left", *, colour: str = INK, weight: str = "normal") -> Row:
    return {"x": x, "y": y, "text": text, "align": align, "colour": colour, "weight": weight}


def _scores(explanation: Explanation, facts: list[Row]) -> list[alt.ConcatChart]:
    """A panel a depth: what the target and what the draft thought of every node; none where nothing was drafted."""
    panels = []
    for depth in range(1, explanation.length):
        at = [i for i, node in enumerate(explanation.nodes) if node.depth == depth and node.status != "item"]
        shown = [i for i in at if explanation.nodes[i].target_score is not None]
        nodes = [explanation.nodes[i] for i in shown]
        if any(node.draft_score is not None for node in nodes):
            panels.append(_panel(depth, explanation, nodes, [facts[i] for i in shown]))
    if not panels:
        return []
    told = "Summed log-probabilities. What the draft did not propose lies on the lower edge."
    if explanation.ranked_by_score:
        told += " Right of the dashed line a node makes the beam, if its parent does."
    title = alt.TitleParams(
        "What target and draft thought of the nodes", subtitle=told, anchor="start", fontSize=13, offset=10,
        subtitleColor=PALE,
    )  # fmt: skip
    return [alt.concat(*panels, columns=3, spacing=40, title=title)]


def _panel(depth: int, explanation: Explanation, nodes: Sequence[ExplainedNode], facts: list[Row]) -> alt.LayerChart:
    target = [score for node in nodes if (score := node.target_score) is not None]
    draft = [score for node in nodes if (score := node.draft_score) is not None]
    low, high = min(target + draft), max(target + draft)
    edge = low - max(0.05 * (high - low), 0.1)
    points = [
        fact | {"x": node.target_score, "y": edge if node.draft_score is None else node.draft_score}
        for node, fact in zip(nodes, facts, strict=True)
    ]
    beam = sorted(score for node, score in zip(nodes, target, strict=True) if node.beam_rank)
    bounds = [{"x": beam[0]}] if beam and explanation.ranked_by_score else []
    scale, axis = alt.Scale(domain=[edge, high], nice=False, zero=False, padding=6), alt.Axis(tickCount=5)
    x = alt.X("x:Q", scale=scale, axis=axis, title="target's score")
    y = alt.Y("y:Q", scale=scale, axis=axis, title="draft's score")
    colour, shape = _look(explanation)
    equal = [{"x": end, "y": end} for end in (low, high)]
    diagonal, bound, point = (_chart(data) for data in (equal, bounds, points))
    layers = [
        diagonal.mark_line(color="#CCCCCC", strokeWidth=1).encode(x=x, y=y),
        bound.mark_rule(color=INK, strokeDash=[4, 3]).encode(x=x),
        point.mark_point(filled=True, size=40).encode(x=x, y=y, color=colour, shape=shape, tooltip=TOOLTIP),
    ]
    title = alt.TitleParams(f"depth {depth}", anchor="start", fontSize=11)
    return alt.LayerChart(layer=layers, width=PANEL, height=PANEL, title=title)


def _chart(data: list[Row]) -> alt.Chart:
    return alt.Chart(alt.InlineData(data))


def _look(explanation: Explanation) -> tuple[alt.Color, alt.Shape]:
    """How the statuses that occur are told apart."""
    styles = [style for status, style in STYLES.items() if explanation.count(status)]
    labels = [style.label for style in styles]
    colours = alt.Scale(domain=labels, range=[style.colour for style in styles])
    shapes = alt.Scale(domain=labels, range=[style.shape for style in styles])
    return alt.Color("status:N", scale=colours, legend=LEGEND), alt.Shape("status:N", scale=shapes, legend=LEGEND)


def _width(explanation: Explanation) -> int:
    return _scored(explanation) + 6


def _scored(explanation: Explanation) -> int:
    """Pixels to the right end of the items' scores. Without titles their column holds notes only, if there are any."""
    leaves = listing(explanation)
    column = TITLE if titled(leaves) else max(math.ceil(pixels(leaf.note)) for leaf in leaves.values())
    return LEFT + COLUMN * explanation.length + _titles(explanation) + column + SCORE


def _titles(explanation: Explanation) -> int:
    """Pixels from the last depth to the items' titles."""
    widest = max(pixels(item.ident) for leaf in listing(explanation).values() for item in leaf.items)
    return IDENT + int(max(widest, pixels("item ")) + 14)


def _number(score: float | None, otherwise: str = "") -> str:
    return otherwise if score is None else f"{score:.2f}".replace("-", "\N{MINUS SIGN}")
