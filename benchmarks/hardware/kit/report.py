"""The report: everything that the parts have found, as Markdown and JSON, with pictures where Altair is."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.hardware.kit.parts import Job, Part
from benchmarks.hardware.kit.record import Record, Row, Setup, Step, read
from specbeam.catalog.errors import said
from specbeam.catalog.files import Frozen, whole_file
from specbeam.engines.bundle.sealed import to_json

LONG = 160  # letters of a reason in the table of parts
MOST = 40  # lines of a table that is shown at once


class Report(Frozen, frozen=True):
    """report.json."""

    written: str  # when, UTC
    setup: Setup
    parts: tuple[Record, ...]
    lacking: tuple[str, ...]  # parts that were not run


def write_report(job: Job, parts: Sequence[Part]) -> Path:
    """Write OUT/report.json, the pictures, and OUT/report.md, whose path it returns; from whatever is there."""
    records = {part.name: record for part in parts if (record := read(job.out, part.name)) is not None}
    report = Report(
        written=datetime.now(UTC).isoformat(timespec="seconds"), setup=job.setup, parts=tuple(records.values()),
        lacking=tuple(part.name for part in parts if part.name not in records),
    )  # fmt: skip
    _keep(job.out / "report.json", to_json(report))
    pictures, why = _pictures(job, records)
    text = "\n".join(_lines(job, parts, records, pictures, why)) + "\n"
    _keep(job.out / "report.md", text.encode())
    return job.out / "report.md"


def _keep(path: Path, content: bytes) -> None:
    with whole_file(path, replace=True) as file:
        file.write(content)


def _pictures(job: Job, records: dict[str, Record]) -> tuple[dict[str, str], str | None]:
    """By part, the picture's path in the folder; and why there are none."""
    try:
        from benchmarks.hardware.kit.pictures import draw
    except ModuleNotFoundError as error:
        from specbeam.catalog.extras import install

        return {}, f"{error.name} is not installed: {install('explain')}"
    except Exception as error:  # the report matters more than its pictures
        return {}, f"Altair cannot be used here: {said(error)}"
    try:
        return draw(job, records), None
    except Exception as error:
        return {}, f"they cannot be drawn: {said(error)}"


def _lines(
    job: Job, parts: Sequence[Part], records: dict[str, Record], pictures: dict[str, str], why: str | None
) -> list[str]:
    lines = [*_head(job.setup), "", "| part | outcome | steps done | seconds | |", "|---|---|---|---|---|"]
    for part in parts:
        record = records.get(part.name)
        if record is None:
            lines.append(f"| [{part.title}](#{_anchor(part.title)}) | not run | | | |")
            continue
        done = sum(step.status == "done" for step in record.steps)
        told = _cell(_short(record.reason or "", LONG))
        counted = f"{done} of {len(record.planned)}"
        link = f"[{part.title}](#{_anchor(part.title)})"
        lines.append(f"| {link} | {record.status} | {counted} | {record.seconds:.0f} | {told} |")
    if why is not None:
        lines += ["", f"No pictures: {why}"]
    for part in parts:
        lines += ["", f"## {part.title}", "", part.shows]
        if part.name.startswith("lossless") and part.name in records:
            rows = least(records[part.name].rows)
            lines += [""] * bool(rows) + (table(rows) if rows else [])
        if part.name in pictures:
            lines += ["", f"![{part.title}]({pictures[part.name]})"]
        lines += _of_part(records.get(part.name), job.setup)
    return lines


def _head(setup: Setup) -> list[str]:
    memory = "" if setup.gpu_memory is None else f", {setup.gpu_memory / 1e9:.1f} GB"
    dry = "**A dry run on a CPU: nothing here says anything about a GPU.**"
    gpu = (
        f"**{setup.gpu}**{memory}, compute capability {setup.compute_capability}, driver {setup.driver}, CUDA up to "
        f"{setup.cuda}"
    )
    versions = ", ".join(f"{name} {version}" for name, version in setup.versions.items())
    return [
        f"# {setup.gpu or 'A dry run'}: what SpecBeam does on it", "",
        dry if setup.device == "cpu" else gpu, "",
        f"Processor: {setup.processor}, {setup.processors} usable; {setup.system}. Pair: `{setup.pair}`. "
        f"Sizes: {setup.size}.", "", f"Versions: {versions}.",
    ]  # fmt: skip


def _of_part(record: Record | None, setup: Setup) -> list[str]:
    if record is None:
        return ["", "Not run."]
    lines = []
    if record.setup != setup:
        lines += ["", "**Of an earlier run, with another machine, library or pair.**"]
    if not record.steps and record.reason:
        lines += ["", f"{record.status.capitalize()}: {record.reason}"]
    for rows in tables(record.rows):
        lines += ["", *folded(table(pivoted(rows)))]
    others = [step for step in record.steps if step.status != "done"]
    lacking = [name for name in record.planned if record.step(name) is None]
    lines += [""] * bool(others or lacking)
    lines += [f"- {step.name}: {step.status}{_why(step)}" for step in others]
    lines += [f"- {name}: not begun" for name in lacking]
    return lines


def _why(step: Step) -> str:
    return "" if step.reason is None else f": {' '.join(step.reason.split())}"


def tables(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of the same columns together."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row), []).append(row)
    return list(found.values())


def table(rows: Sequence[Row]) -> list[str]:
    heads = list(rows[0])
    body = ["| " + " | ".join(_cell(row[head]) for head in heads) + " |" for row in rows]
    return ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *body]


def least(rows: Sequence[Row]) -> list[Row]:
    """Of the lists with drafts, by engine and mode: all of them together, and the least overlap of any K and batch."""
    found = []
    for engine, mode in dict.fromkeys((row["engine"], row["mode"]) for row in rows):
        own: list[Any] = [row for row in rows if (row["engine"], row["mode"]) == (engine, mode)]
        overlaps = {
            f"least {head}": min(row[head] for row in own) for head in ("overlap", "overlap with float32 on the CPU")
        }
        found.append({
            "engine": engine, "mode": mode, "lists": sum(row["lists"] for row in own),
            "as without drafts": sum(row["as without drafts"] for row in own), **overlaps,
            "rejected nodes": sum(row["rejected nodes"] for row in own),
        })  # fmt: skip
    return found


def pivoted(rows: list[Row]) -> list[Row]:
    """Times of calls with the new tokens side by side; other rows as they are."""
    if not {"new", "ms"} <= rows[0].keys():
        return rows
    sizes = sorted({int(row["new"]) for row in rows})
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        others = {name: value for name, value in row.items() if name not in ("new", "ms")}
        line = found.setdefault(tuple(others.values()), others | {f"{new} new: ms": None for new in sizes})
        line[f"{row['new']} new: ms"] = row["ms"]
    return list(found.values())


def folded(lines: list[str]) -> list[str]:
    """A long table behind a line that opens it."""
    if len(lines) <= MOST:
        return lines
    return [f"<details><summary>{len(lines) - 2} rows</summary>", "", *lines, "", "</details>"]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else " ".join(str(value).split()).replace("|", "\\|")


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _anchor(title: str) -> str:
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")
