"""An evaluation as a picture: speed-up and target calls against K, a line a mode."""

from collections.abc import Sequence
from textwrap import wrap
from typing import Any, Final

import altair as alt

from ..engines.machine.processors import busy
from ..runtime.metrics import FEWEST, Estimate
from .bench import Setup
from .run import Evaluation
from .settings import GENERATE, PLAIN
from .table import drafting, machine
from .tree_picture import FONT, INK, PALE

# Of Okabe and Ito's palette, which the colour-blind can tell apart; modes differ in form, too.
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#777777", "#F0E442")
SHAPES: Final = (
    "circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "stroke", "triangle-left",
)  # fmt: skip
WIDTH, HEIGHT = 360, 260  # pixels of a panel
LINE = 118  # letters of a line above the panels
SHIFT = 0.06  # of the distance between two K: modes stand beside each other, so that all intervals are seen
Row = dict[str, Any]


def chart(evaluation: Evaluation) -> alt.VConcatChart:
    """Two panels: WS@K at batch 1 against `generate` (else against plain beam search), and target calls.

    Without walltime there is the second alone. Bars are 95 % intervals.
    """
    names = [mode.search.name for mode in evaluation.modes]
    told = (_speed(evaluation), _calls(evaluation))
    panels = [panel(rows, said, names, level) for rows, said, level in told if rows]
    title = "Speed and target calls by list length" if evaluation.paces else "Target calls by list length"
    return framed([alt.hconcat(*panels, spacing=40, **warned(evaluation.setup))], title, _facts(evaluation))


def framed(rows: Sequence[alt.HConcatChart], title: str, facts: Sequence[str], **more: Any) -> alt.VConcatChart:
    """Rows of panels under a title, and what was measured on what; more: of the whole chart."""
    heading = alt.TitleParams(
        title, subtitle=[line for text in facts for line in wrap(text, LINE)], anchor="start",
        fontSize=18, offset=14, subtitleFontSize=12, subtitleColor=PALE, subtitlePadding=8, subtitleLineHeight=17,
    )  # fmt: skip
    config = alt.Config(
        font=FONT, background="white", view=alt.ViewConfig(stroke=None), title=alt.TitleConfig(color=INK),
        axis=alt.AxisConfig(labelColor=INK, titleColor=PALE, titleFontWeight="normal", gridColor="#EEEEEE"),
    )  # fmt: skip
    return alt.vconcat(*rows, title=heading, padding=24, config=config, **more)


def _facts(evaluation: Evaluation) -> list[str]:
    """What was measured, and on what."""
    data, setup = evaluation.data, evaluation.setup
    facts = [
        f"{data.folder}, {data.split}: {data.requests:,} requests; {setup.bundle}, {setup.engine}; "
        f"target calls at batch {evaluation.settings.batch_size}",
        machine(setup),
        *(f"{mode.search.name}: {drafting(mode.search, setup.drafter)}" for mode in evaluation.modes),
    ]
    rounds = evaluation.paces[0].rounds if evaluation.paces else FEWEST
    bars = "95 % intervals" if rounds >= FEWEST else f"95 % intervals, of the speed-up all of {rounds} rounds"
    facts.append(f"K: items a list. Bars: {bars}.")
    return facts


def warned(setup: Setup) -> dict[str, Any]:
    """A title for the panels where times are not to be trusted."""
    told = busy(setup.load, setup.processors)
    return (
        {"title": alt.TitleParams(f"Note: {told}", color=COLOURS[1], fontSize=13, anchor="start", offset=12)}
        if told
        else {}
    )


def _speed(evaluation: Evaluation) -> tuple[list[Row], str, float | None]:
    """WS@K of every mode, the panel's title, and where the baseline lies; no rows where nothing was timed."""
    paces = [pace for pace in evaluation.paces if pace.batch == 1]
    base = next((base for base in (GENERATE, PLAIN) if any(base in pace.speedup for pace in paces)), None)
    if base is None:
        return [], "", None
    said = "generate" if base == GENERATE else "plain beam search"
    rows = [point(p.name, p.k, p.speedup[base]) for p in paces if base in p.speedup and p.name != GENERATE]
    return rows, f"Speed-up WS@K over {said} (batch 1)", 1.0


def _calls(evaluation: Evaluation) -> tuple[list[Row], str, float | None]:
    rows = [point(mode.search.name, at.k, at.target_calls) for mode in evaluation.modes for at in mode.at]
    return rows, "Target calls a request", None


def point(name: str, k: int, number: Estimate) -> Row:
    """A mode's number at one place of the axis."""
    return {"mode": name, "k": k, "value": number.value, "low": number.low, "high": number.high}


def panel(
    rows: Sequence[Row], title: str, names: Sequence[str], level: float | None, across: str = "K"
) -> alt.LayerChart:
    """A line and its intervals for every mode against `across`; `level`: a dashed line there."""
    top = 1.06 * max(row["high"] for row in rows)
    lengths = sorted({row["k"] for row in rows})
    aside = {name: SHIFT * (i - (len(names) - 1) / 2) for i, name in enumerate(names)}
    data = _data([row | {"x": lengths.index(row["k"]) + aside[row["mode"]]} for row in rows])
    ticks = alt.Axis(values=list(range(len(lengths))), labelExpr=f"{lengths}[datum.value]", grid=False)
    x = alt.X("x:Q", title=across, axis=ticks, scale=alt.Scale(domain=[-0.5, len(lengths) - 0.5], nice=False))
    y, low = (alt.Y(f"{name}:Q", title=None, scale=alt.Scale(domain=[0, top], nice=False)) for name in ("value", "low"))
    legend = alt.Legend(title=None, orient="top", columns=3, labelLimit=0, labelFontSize=12, labelColor=INK)
    colour, shape = (
        kind("mode:N", scale=alt.Scale(domain=names, range=looks[: len(names)]), legend=legend)
        for kind, looks in ((alt.Color, COLOURS), (alt.Shape, SHAPES))
    )
    tips = [alt.Tooltip("mode:N"), alt.Tooltip("k:O", title=across)]
    tips += [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("value", "low", "high")]
    layers = [
        _data([] if level is None else [{"value": level}]).mark_rule(color=PALE, strokeDash=[4, 3]).encode(y=y),
        data.mark_rule(strokeWidth=1.5).encode(x=x, y=low, y2="high:Q", color=colour),
        data.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=colour),
        data.mark_point(filled=True, size=60, opacity=1).encode(x=x, y=y, color=colour, shape=shape, tooltip=tips),
    ]
    heading = alt.TitleParams(title, anchor="start", frame="group", fontSize=13)
    return alt.LayerChart(layer=layers, width=WIDTH, height=HEIGHT, title=heading)


def _data(rows: list[Row]) -> alt.Chart:
    return alt.Chart(alt.InlineData(rows))
