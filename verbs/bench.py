"""bench: ways to serve the same histories, in turns."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    BY_DEFAULT,
    LISTED,
    PICTURE_HELP,
    FileOrPipe,
    PathType,
    format_options,
    given,
    pool_option,
    scoring_option,
    shape_options,
    threads_option,
)
from .output import Bars, claim_outputs
from .values import HistoryFiles, collected, histories_value

if TYPE_CHECKING:
    from ..evaluate.race import RaceOutputs, RaceSettings
    from ..evaluate.race.figures import Race, Sources

CHECK_HELP = "A file of --output: measure the same again and say which ratios moved beyond their intervals."


def listed(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Words, given several times or parted by commas."""
    return tuple(word.strip() for value in values for word in value.split(","))


def numbers(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    """Whole numbers from 1 on, likewise."""
    words = listed(context, option, values)
    for word in words:
        if not (word.isascii() and word.isdigit() and int(word)):
            raise click.BadParameter(
                f"got {word!r}; expected whole numbers from 1 on, such as 1,8,32.", context, option
            )
    return tuple(map(int, words))


def _outputs(output: Path | None, plots: tuple[Path, ...], overwrite: bool) -> "RaceOutputs":
    from ..evaluate.race import RaceOutputs

    return RaceOutputs(output, plots, overwrite)


@click.command()
@click.argument("bundle", required=False, type=PathType)
@click.argument("histories", nargs=-1, type=FileOrPipe)
@click.option("--k", "-k", "top_k", multiple=True, callback=numbers, help="Items a list. Default: 1,5,10,20,50.")
@click.option("--batches", multiple=True, callback=numbers, help="Requests of a batch. Default: 1,8,32.")
@click.option("--contestants", multiple=True, callback=listed, metavar="NAMES", help="Of those below. Default: all.")
@click.option("--users", type=click.IntRange(1), help="Requests at most, the files' first. Default: 256.")
@click.option("--rounds", type=click.IntRange(1), help="Turns of each contestant in a cell. Default: 20.")
@click.option("--seconds", type=float, help="Of a cell at most; the slow get fewer turns. Default: 60.")
@click.option("--oracle", is_flag=True, help="Measure the floor, too: the plain loop's calls alone.")
@scoring_option
@pool_option
@shape_options
@click.option("--engine", metavar="NAME", help=f"{LISTED}. {BY_DEFAULT}")
@threads_option
@format_options
@click.option("--check", type=PathType, metavar="STORED", help=CHECK_HELP)
@click.option("--output", "-o", type=PathType, help="All numbers, settings and versions as JSON.")
@click.option("--plot", "plots", multiple=True, type=PathType, help=PICTURE_HELP)
@click.option("--overwrite", is_flag=True, help="Replace existing outputs.")
@collected("outputs", _outputs)
@histories_value
def bench(bundle: Path | None, files: HistoryFiles, check: Path | None, outputs: "RaceOutputs", **options: Any) -> None:
    """Let ways to serve the same histories take turns: how fast each is, and where its time goes.

    \b
    Contestants (docs/performance.md):
      generate         transformers' beam search, the trie by prefix_allowed_tokens_fn
      generate-arrays  the same, the trie as arrays
      beams            a row a beam and reordered caches, on the same engine
      plain            our loop without drafting
      model, retrieval, both   drafts of a fixed shape by what is named
      auto             drafts what pays: the default of infer

    For every K and batch size: latency, users a second, ratios with intervals, calls, nodes, time by parts, and memory.
    All find the same lists, which is checked.

    \b
    Examples:
      specbeam bench bundle histories.jsonl --output bench.json --plot bench.svg
      specbeam bench bundle histories.jsonl -k 20 --batches 1,8 --contestants plain,auto --oracle
      specbeam bench --check bench.json

    \b
    Exit status 1: lists differ, or with --check a ratio moved.
    """
    from ..catalog.errors import SpecBeamError
    from ..evaluate.race import check_again, race
    from ..evaluate.race.check import read_race
    from ..evaluate.race.table import compared, described

    claim_outputs(*outputs.paths)
    outputs.check()
    stored = None if check is None else read_race(check)
    bundle, files, settings = _asked(stored, bundle, files, options)
    with Bars() as bars:
        found = race(bundle, _histories(files), settings, sources=_sources(files), progress=bars)
    outputs.write(found)
    click.echo(described(found))
    faults = [f"{found.differing} lists are not what they must be"] if found.differing else []
    if stored is not None:
        result = check_again(stored, found)
        click.echo(f"\n{compared(result)}")
        faults += [f"{len(result.moved)} ratios moved"] if result.moved else []
    if outputs.paths:
        click.echo(f"\nWrote {', '.join(map(str, outputs.paths))}")
    if faults:
        raise SpecBeamError(f"{'; '.join(faults)}: see above.")


def _asked(
    stored: "Race | None", bundle: Path | None, files: HistoryFiles, options: dict[str, Any]
) -> "tuple[Path, HistoryFiles, RaceSettings]":
    """What to measure: as the options say, or as what is stored was measured."""
    from ..catalog.errors import OptionError
    from ..evaluate.race import CONTESTANTS, RaceSettings
    from ..runtime import DraftShape

    shape = given({"width": options.pop("draft_width"), "length": options.pop("draft_length")})
    asked = {name: value for name, value in given(options).items() if value not in ((), False)}
    if stored is not None:
        if asked or shape:
            raise OptionError("with --check everything is measured as it was stored: leave all other settings out.")
        if not files.histories:
            kept = stored.sources
            files = HistoryFiles(tuple(map(Path, kept.histories)), kept.format, kept.item_base)
        return bundle or Path(stored.setup.bundle), files, stored.settings
    if bundle is None or not files.histories:
        raise click.UsageError("Missing argument: expected BUNDLE and HISTORIES, or --check STORED.")
    unknown = [name for name in asked.get("contestants", ()) if name not in CONTESTANTS]
    if unknown:
        raise OptionError(f"got the contestant {unknown[0]!r}; expected some of {', '.join(CONTESTANTS)}.")
    if "pool" in asked:
        asked["pool"] = str(asked["pool"])
    if shape:
        asked["shape"] = DraftShape(**shape)
    return bundle, files, RaceSettings(**asked)


def _sources(files: HistoryFiles) -> "Sources":
    from ..evaluate.race.figures import Sources

    return Sources(histories=tuple(map(str, files.histories)), format=files.format, item_base=files.item_base)


def _histories(files: HistoryFiles) -> list[tuple[str | None, list[str]]]:
    """Users and their items; lines that are no requests are told of and left out."""
    from ..catalog.histories.requests import HistoryRequest

    read = list(files.entries())
    requests = [entry for entry in read if isinstance(entry, HistoryRequest)]
    if len(requests) < len(read):
        click.echo(f"{len(read) - len(requests)} lines are no requests and are left out (infer tells why)", err=True)
    return [(entry.user, list(entry.items)) for entry in requests]
