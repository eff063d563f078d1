"""What `objectives.py` found, as tables and as a picture."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import numpy as np

from benchmarks.alignment.results import BASELINE, NONE, ORDER, UNTAUGHT, Report
from benchmarks.shared import print_table
from specbeam.evaluate.picture import COLOURS, SHAPES
from specbeam.evaluate.tree_picture import FONT, INK, PALE, save
from specbeam.runtime.metrics import Estimate, estimate, resampled_means

WIDTH, HEIGHT = 340, 230  # pixels of a panel


def spread(values: Sequence[float], digits: int) -> str:
    """The seeds' mean, and how far from it the lowest and the highest are."""
    told = f"{np.mean(values):.{digits}f}"
    return told if len(values) == 1 else f"{told} ± {(max(values) - min(values)) / 2:.{digits}f}"


def bracketed(number: Estimate | None, digits: int) -> str:
    if number is None:
        return "-"
    return f"{number.value:.{digits}f} [{number.low:.{digits}f}, {number.high:.{digits}f}]"


def by_k(report: Report, title: str, cell: Callable[[str, int], str], objectives: Sequence[str] = ()) -> None:
    """A table: a row an objective (default: all), a column a K."""
    print(f"\n{title}:\n")
    lengths = report.setup.top_k
    rows = [[name, *(cell(name, k) for k in lengths)] for name in objectives or report.runs]
    print_table(["objective", *(f"K = {k}" for k in lengths)], rows)


class Gain(NamedTuple):
    """An objective's strict target calls against another's, over the same users."""

    calls: Estimate  # more calls a user
    avoidable: Estimate | None  # share removed of the calls beyond the first; None: the other has no such calls


def gain(report: Report, objective: str, base: str, k: int) -> Gain:
    """Paired: users are drawn with replacement, and each brings all seeds of both that `shared` names."""
    seeds = shared(report, objective, base)
    columns = np.stack([report.calls(objective, k, seeds), report.calls(base, k, seeds)], axis=1)  # [U, 2]
    own, other = columns.mean(axis=0)
    drawn = resampled_means(columns, report.runs[base][0].users)
    calls = estimate(own - other, drawn[:, 0] - drawn[:, 1])
    if other <= 1:
        return Gain(calls, None)
    sure = drawn[drawn[:, 1] > 1]
    return Gain(calls, estimate(1 - (own - 1) / (other - 1), 1 - (sure[:, 0] - 1) / (sure[:, 1] - 1)))


def shared(report: Report, objective: str, base: str) -> set[int]:
    """The seeds that both have; the draft that was taught nothing has all."""
    own, other = ({result.seed for result in report.runs.get(name, [])} for name in (objective, base))
    return own if base in UNTAUGHT and other else own & other


def tables(report: Report) -> None:
    """Print everything."""
    setup, at = report.setup, report.at
    print(
        f"{setup.data}, {setup.users} test users, L = {report.length}, drafts of {setup.steps} steps of {setup.batch}; "
        "mean of the seeds ± half their range"
    )

    def calls_of(mode: str) -> Callable[[str, int], str]:
        return lambda name, k: spread([m.modes[mode].target_calls.value for m in at(name, k)], 2)

    def steps_of(mode: str) -> Callable[[str, int], str]:
        return lambda name, k: spread([m.modes[mode].accept_steps.value for m in at(name, k)], 2)

    def once(name: str, k: int) -> str:
        return spread([np.mean(np.array(m.calls["strict"]) == 1) for m in at(name, k)], 3)

    def depths(name: str, k: int) -> str:
        rates = zip(*(m.modes["strict"].acceptance for m in at(name, k)), strict=True)
        known = [[rate for rate in seeds if rate is not None] for seeds in rates]
        return " / ".join(f"{np.mean(seeds):.1%}" if seeds else "-" for seeds in known)

    by_k(report, "Target calls a user, strict (nothing evaluated is thrown away)", calls_of("strict"))
    by_k(report, "Target calls a user, strict under AtSpeed's all-or-nothing rule", calls_of("all-or-nothing"))
    by_k(report, "AS@K, strict", steps_of("strict"))
    by_k(report, "AS@K, relaxed", steps_of("relaxed"))
    by_k(report, "Share of users whose first target call was the only one, strict", once)
    by_k(report, "Needed nodes that were drafted, strict, by depth", depths)
    quality_tables(report)
    gain_tables(report)
    speed_tables(report)
    print(f"\n{checked(report)}")


def quality_tables(report: Report) -> None:
    """Recall and NDCG of relaxed lists; the strict ones are everybody's."""
    strict = f"strict, {next(iter(report.runs))}"
    for metric in ("recall", "ndcg"):

        def cell(name: str, k: int, metric: str = metric) -> str:
            mode, objective = ("strict", name.removeprefix("strict, ")) if name == strict else ("relaxed", name)
            return spread([getattr(m.modes[mode], metric).value for m in report.at(objective, k)], 4)

        title = {"recall": "Recall@K", "ndcg": "NDCG@K"}[metric]
        by_k(report, f"{title}, relaxed (and, once, of the strict lists)", cell, [strict, *report.runs])


def gain_tables(report: Report) -> None:
    """What every taught draft saves against plain further training, and against the draft as it came."""
    for base in (BASELINE, NONE):
        others = [name for name in report.runs if name not in (*UNTAUGHT, base) and shared(report, name, base)]
        if not others:
            continue
        gains = {(name, k): gain(report, name, base, k) for name in others for k in report.setup.top_k}
        told = f"{base} (same seeds and users; brackets: 95 % over users)"
        title = f"Strict target calls a user beyond those of {told}"
        by_k(report, title, lambda name, k, gains=gains: bracketed(gains[name, k].calls, 3), others)
        title = f"Share of strict target calls but the first that is removed, against {told}"
        by_k(report, title, lambda name, k, gains=gains: bracketed(gains[name, k].avoidable, 3), others)


def speed_tables(report: Report) -> None:
    """WS@K of either mode over either baseline."""
    if (speed := report.speed) is None:
        return
    found = {(pace.name, pace.k): pace for pace in speed.paces}
    names = [name for name in ORDER if (name, report.setup.top_k[0]) in found]
    rounds = speed.paces[0].rounds
    for mode, ending in (("strict", ""), ("relaxed", ", relaxed")):
        for base in ("plain", "generate"):
            title = f"WS@K, {mode}, over {base} (batch 1, {speed.engine}, {speed.threads} threads, {rounds} rounds)"

            def cell(name: str, k: int, base: str = base, ending: str = ending) -> str:
                return bracketed(found[f"{name}{ending}", k].speedup.get(base), 2)

            by_k(report, title, cell, names)


def checked(report: Report) -> str:
    """Whether strict lists are the same whatever drafted them."""
    results = [result for runs in report.runs.values() for result in runs]
    every = [at for result in results for at in result.at]
    differing = sum(at.modes[mode].differing or 0 for at in every for mode in ("strict", "all-or-nothing"))
    total = 2 * len(report.setup.top_k) * len(results) * len(results[0].users)
    lengths = [k for k in report.setup.top_k if len({at.lists for at in every if at.k == k}) > 1]
    digests = f"but for near ties at K = {', '.join(map(str, lengths))}" if lengths else "to the byte"
    return (
        f"{total - differing} of {total} strict lists are those of plain beam search; over the {len(results)} drafts "
        f"they are the same {digests if not differing else 'NOT everywhere'}."
    )


def draw(report: Report, path: Path) -> None:
    """AS@K and target calls against K, a line an objective, as an .html, .svg or .png."""
    panels = [
        alt.hconcat(*(_panel(report, figure, mode) for mode in ("strict", "relaxed")), spacing=40)
        for figure in ("accept_steps", "target_calls")
    ]
    title = alt.TitleParams(
        f"Drafts by what they were taught, {report.setup.data}", anchor="start", fontSize=18, offset=14,
        subtitle=f"{report.setup.users} test users; bars: lowest to highest seed", subtitleColor=PALE,
    )  # fmt: skip
    config = alt.Config(
        font=FONT, background="white", view=alt.ViewConfig(stroke=None), title=alt.TitleConfig(color=INK),
        axis=alt.AxisConfig(labelColor=INK, titleColor=PALE, titleFontWeight="normal", gridColor="#EEEEEE"),
    )  # fmt: skip
    save(alt.vconcat(*panels, title=title, padding=24, spacing=28, config=config), path)


def _panel(report: Report, figure: str, mode: str) -> alt.LayerChart:
    rows: list[dict[str, Any]] = []
    for name in report.runs:
        for k in report.setup.top_k:
            values = [getattr(at.modes[mode], figure).value for at in report.at(name, k)]
            rows.append({"objective": name, "k": k, "value": np.mean(values), "low": min(values), "high": max(values)})
    names, base = list(report.runs), alt.Chart(alt.InlineData(rows))
    x = alt.X("k:O", title="K", axis=alt.Axis(labelAngle=0))
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False))
    legend = alt.Legend(title=None, orient="top", columns=4, labelLimit=0, labelFontSize=12, labelColor=INK)
    colour, shape = (
        kind("objective:N", scale=alt.Scale(domain=names, range=looks[: len(names)]), legend=legend)
        for kind, looks in ((alt.Color, COLOURS), (alt.Shape, SHAPES))
    )
    tips = [alt.Tooltip("objective:N"), alt.Tooltip("k:O", title="K"), alt.Tooltip("value:Q", format=".3f")]
    layers = [
        base.mark_rule(strokeWidth=1.5).encode(x=x, y=alt.Y("low:Q", title=None), y2="high:Q", color=colour),
        base.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=colour),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=x, y=y, color=colour, shape=shape, tooltip=tips),
    ]
    said = {"accept_steps": "AS@K", "target_calls": "Target calls a user"}[figure]
    heading = alt.TitleParams(f"{said}, {mode}", anchor="start", frame="group", fontSize=13)
    return alt.LayerChart(layer=layers, width=WIDTH, height=HEIGHT, title=heading)
