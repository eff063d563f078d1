"""A race as a picture: speed against K, latency against batch, and where the time goes."""

from collections.abc import Sequence

import altair as alt

from ...runtime.metrics import Estimate
from ..picture import HEIGHT, WIDTH, Row, framed, panel, point, warned
from ..table import machine
from .figures import PARTS, Lane, Race
from .settings import FLOOR

SHADES = ("#08519C", "#4292C6", "#9ECAE1", "#D55E00", "#BBBBBB")  # of a request's parts: other colours than contestants
APART = alt.Resolve(scale=alt.ScaleResolveMap(color="independent", shape="independent"))
USUAL = 20  # the K whose latency and time split are drawn, where it was measured


def chart(race: Race) -> alt.VConcatChart:
    """Speed against K, a panel a batch size; latency against batch; a request's time, part by part."""
    lanes = [lane for lane in race.lanes if lane.name != FLOOR]
    names = list(dict.fromkeys(lane.name for lane in lanes))
    batches = sorted({lane.batch for lane in lanes})
    k = min({lane.k for lane in lanes}, key=lambda each: abs(each - USUAL))
    speed = [panel(_speed(lanes, batch), f"Users a second (batch {batch})", names, None) for batch in batches]
    usual = [lane for lane in lanes if lane.k == k]
    latency = panel(_latency(usual), f"Milliseconds a batch, median to p95 (K = {k})", names, None, "batch")
    splits = [_split(usual, batch, names) for batch in batches[:2]]
    rows = [
        alt.hconcat(*speed, spacing=40, **warned(race.setup)),
        alt.hconcat(latency, *splits, spacing=40, resolve=APART),
    ]
    return framed(rows, "Speed by contestant", _facts(race), resolve=APART)


def _facts(race: Race) -> list[str]:
    setup = race.setup
    return [
        f"{setup.bundle}, {setup.engine}; {race.requests} requests, all contestants in turns",
        machine(setup),
        "Users a second: of the median turn; bars: its 95 % interval. Time split: means of a request.",
    ]


def _speed(lanes: Sequence[Lane], batch: int) -> list[Row]:
    """Users a second; the interval is that of the milliseconds."""
    of_batch = [lane for lane in lanes if lane.batch == batch]
    pairs = [(lane, lane.milliseconds) for lane in of_batch]
    return [point(lane.name, lane.k, Estimate(1000 / ms.value, 1000 / ms.high, 1000 / ms.low)) for lane, ms in pairs]


def _latency(lanes: Sequence[Lane]) -> list[Row]:
    pairs = [(lane, lane.latency) for lane in lanes]
    return [point(lane.name, lane.batch, Estimate(ms.median, ms.median, ms.p95)) for lane, ms in pairs]


def _split(lanes: Sequence[Lane], batch: int, names: Sequence[str]) -> alt.Chart:
    """Every contestant's milliseconds of a request as a bar of parts."""
    rows: list[Row] = [
        {"contestant": lane.name, "part": part, "value": max(0.0, lane.work.milliseconds[part]), "order": order}
        for lane in lanes
        if lane.batch == batch
        for order, part in enumerate(PARTS)
    ]
    colour = alt.Color(
        "part:N", scale=alt.Scale(domain=list(PARTS), range=list(SHADES)),
        legend=alt.Legend(title=None, orient="top", labelFontSize=12),
    )  # fmt: skip
    heading = alt.TitleParams(f"Milliseconds of a request (batch {batch})", anchor="start", frame="group", fontSize=13)
    tips = [alt.Tooltip("contestant:N"), alt.Tooltip("part:N"), alt.Tooltip("value:Q", format=".2f")]
    bars = alt.Chart(alt.InlineData(rows)).mark_bar().encode(
        x=alt.X("value:Q", title="ms", stack="zero"), y=alt.Y("contestant:N", title=None, sort=list(names)),
        color=colour, order=alt.Order("order:Q"), tooltip=tips,
    )  # fmt: skip
    drawn: alt.Chart = bars.properties(width=WIDTH, height=HEIGHT, title=heading)
    return drawn
