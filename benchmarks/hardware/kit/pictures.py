"""The report's pictures: calls against tokens, overlaps of lists, searches by the luck of their drafts."""

from collections.abc import Callable

import altair as alt

from benchmarks.hardware.kit.parts import Job
from benchmarks.hardware.kit.record import Record, Row, Setup
from specbeam.catalog.errors import said
from specbeam.evaluate.picture import COLOURS, HEIGHT, WIDTH, framed
from specbeam.evaluate.tree_picture import save

BAR = 26  # pixels
KINDS = (".svg", ".png")


def draw(job: Job, records: dict[str, Record]) -> dict[str, str]:
    """Write OUT/pictures/<part>.svg and .png of the parts that have one; the SVG's path in OUT by part."""
    drawn = {}
    for name, chart in CHARTS.items():
        rows = [row for part, record in records.items() if part.startswith(name) for row in record.rows]
        try:
            panels = chart(rows)
            if not panels:
                continue
            (job.out / "pictures").mkdir(exist_ok=True)
            picture = framed([alt.hconcat(*panels, spacing=40)], TITLES[name], [told(job.setup)])
            for kind in KINDS:
                save(picture, job.out / "pictures" / f"{name}{kind}", overwrite=True)
        except Exception as error:  # the renderer's, or an earlier kit's rows: the report has the numbers all the same
            print(f"no picture of {name}: {said(error)}")
            continue
        drawn[next(part for part in records if part.startswith(name))] = f"pictures/{name}.svg"
    return drawn


def told(setup: Setup) -> str:
    """On what it was measured."""
    if setup.device == "cpu":
        return f"A dry run on {setup.processor}: nothing here says anything about a GPU"
    return f"{setup.gpu}, compute capability {setup.compute_capability}, driver {setup.driver}"


def calls(rows: list[Row], heads: tuple[str, str] = ("role", "engine")) -> list[alt.Chart]:
    """Milliseconds against new tokens at batch 1 behind the longest prompt that is cached: a panel a role or model."""
    across, lines = heads
    least = min((row["batch"] for row in rows), default=1)
    panels = []
    for role in dict.fromkeys(row[across] for row in rows):
        of_role = [row for row in rows if row[across] == role and row["batch"] == least]
        cached = [row["cached"] for row in of_role if row["cached"]]
        usual = min(cached, default=0)
        data = [{"line": str(row[lines]), "x": row["new"], "y": row["ms"]} for row in of_role if row["cached"] == usual]
        panels.append(_lines(data, f"{role}: ms a call (batch {least}, {usual} tokens cached)", "new tokens"))
    return panels


def larger(rows: list[Row]) -> list[alt.Chart]:
    return calls(rows, ("model", "backend"))


def overlaps(rows: list[Row]) -> list[alt.Chart]:
    """The least overlap over modes, K and batches, with the same engine's plain lists and with the CPU's float32."""
    panels = []
    for head, title in (
        ("overlap", "with its own lists without drafts"),
        ("overlap with float32 on the CPU", "with float32 on the CPU"),
    ):
        engines = dict.fromkeys(str(row["engine"]) for row in rows)
        data = [{"bar": engine, "y": min(row[head] for row in rows if row["engine"] == engine)} for engine in engines]
        if data:
            panels.append(_bars(data, f"Least overlap {title}", [0, 1]))
    return panels


def luck(rows: list[Row]) -> list[alt.Chart]:
    """Times as fast as plain beam search, a panel a model and backend, at the smallest batch."""
    panels = []
    for model, backend in dict.fromkeys((row["model"], row["backend"]) for row in rows):
        own = [row for row in rows if (row["model"], row["backend"]) == (model, backend)]
        batch = min(row["batch"] for row in own)
        data = [{"bar": row["drafts"], "y": row["times as fast"]} for row in own if row["batch"] == batch]
        panels.append(_bars(data, f"{model}, {backend}: times as fast as plain (batch {batch})", None))
    return panels


def _lines(data: list[Row], title: str, across: str) -> alt.Chart:
    names = list(dict.fromkeys(str(row["line"]) for row in data))
    colour = alt.Color(
        "line:N", scale=alt.Scale(domain=names, range=list(COLOURS[: len(names)])),
        legend=alt.Legend(title=None, orient="bottom", columns=2, labelLimit=0),
    )  # fmt: skip
    chart = alt.Chart(alt.InlineData(data)).mark_line(point=True).encode(
        x=alt.X("x:Q", title=across), y=alt.Y("y:Q", title=None, scale=alt.Scale(zero=True)), color=colour,
    )  # fmt: skip
    return _titled(chart, title)


def _bars(data: list[Row], title: str, ends: list[float] | None) -> alt.Chart:
    scale = alt.Scale(zero=True) if ends is None else alt.Scale(domain=ends)
    chart = alt.Chart(alt.InlineData(data)).mark_bar(color=COLOURS[0]).encode(
        y=alt.Y("bar:N", title=None, sort=None, axis=alt.Axis(labelLimit=0)), x=alt.X("y:Q", title=None, scale=scale),
    )  # fmt: skip
    return _titled(chart, title, BAR * len(data))


def _titled(chart: alt.Chart, title: str, height: int = HEIGHT) -> alt.Chart:
    heading = alt.TitleParams(title, anchor="start", frame="group", fontSize=13)
    drawn: alt.Chart = chart.properties(width=WIDTH, height=height, title=heading)
    return drawn


CHARTS: dict[str, Callable[[list[Row]], list[alt.Chart]]] = {
    "latency": calls, "calls": larger, "lossless": overlaps, "speculation": luck,
}  # fmt: skip
TITLES = {
    "latency": "A call of the pair, by engine", "calls": "A call of larger targets",
    "lossless": "Lists with drafts beside lists without", "speculation": "Speculation at forced acceptance",
}  # fmt: skip
