"""Top-K lists: infer writes them, explain draws how one came about."""

from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import click

from ..catalog.errors import SpecBeamError
from .options import (
    PICTURE_HELP,
    FileOrPipe,
    PathType,
    batch_option,
    bundle_argument,
    drafter_options,
    engine_option,
    format_options,
    histories_argument,
    mode_options,
    scoring_option,
    shape_by_hand,
    shape_options,
    speculation_option,
    threads_option,
    verify_option,
)
from .output import Bars, claim_outputs, summary, write_results

TOP_K_HELP = "Items for each request that does not ask for a number of its own."
SLACK_HELP = "tolerant (which needs it): how much lower than the node it replaces a stand-in may score, e.g. 0.1."


@click.command()
@bundle_argument
@histories_argument
@click.option("--output", "-o", required=True, type=FileOrPipe, help="JSON lines; - is standard output.")
@click.option("--top-k", "-k", default=20, show_default=True, type=click.IntRange(1), help=TOP_K_HELP)
@verify_option
@scoring_option
@click.option("--slack", type=float, metavar="NATS", help=SLACK_HELP)
@click.option("--temperature", type=float, help="relaxed, sampled: above 1 more varied, below 1 less. Default: 1.")
@click.option("--seed", type=int, help="relaxed, sampled: the same seed draws the same list for a user. Default: 0.")
@click.option("--exclude-history", is_flag=True, help="Recommend nothing that a request's history holds.")
@click.option("--allow", type=PathType, help="File of item ids, one a line: recommend only these.")
@click.option("--deny", type=PathType, help="File of item ids, one a line: recommend none of these.")
@drafter_options
@speculation_option
@shape_options
@engine_option
@batch_option
@threads_option
@format_options
@click.option("--limit", type=click.IntRange(1), help="Read only the first LIMIT requests.")
@click.option("--stats", is_flag=True, help="Write each request's target calls, draft calls and evaluated nodes.")
@click.option("--rejects", type=PathType, help="Where unusable lines go. Default: OUTPUT.rejects.jsonl.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def infer(
    bundle: Path, histories: tuple[Path, ...], output: Path, top_k: int, mode: Any, scoring: Any, slack: float | None,
    temperature: float | None, seed: int | None, exclude_history: bool, allow: Path | None, deny: Path | None,
    drafter: Any, pool: Path | None, speculation: Literal["auto", "fixed"] | None, draft_width: int | None,
    draft_length: int | None, engine: str | None, batch_size: int, threads: int | None, format: str | None,
    item_base: int, limit: int | None, stats: bool, rejects: Path | None, overwrite: bool,
) -> None:  # fmt: skip
    """Write the top-K items for every history: one JSON line a request, in the input's order.

    A line of HISTORIES is such as {"user": "u1", "items": ["11", "4"]}, oldest item first. It may hold a "k" of its
    own, "allow" and "deny", lists of item ids, and "exclude_history": true; other keys are ignored. A result that is
    shorter than was asked for, because no more items are allowed, says how many are "available".

    \b
    Examples:
      specbeam infer bundle histories.jsonl --output recs.jsonl --top-k 20
      specbeam infer bundle histories.jsonl -o recs.jsonl --exclude-history --allow in_stock.txt
      specbeam infer bundle histories.jsonl -o recs.jsonl --verify sampled --temperature 0.7 --seed 11
      specbeam infer bundle sequential_train.txt sequential_valid.txt --item-base 1 -o recs.jsonl
      specbeam infer bundle histories.jsonl -o recs.jsonl --pool item-pool --drafter retrieval
      zcat histories.jsonl.gz | specbeam infer bundle - --output - --rejects bad.jsonl | gzip > recs.jsonl.gz
    """
    from ..catalog.history import read_histories
    from ..engines.bundle import Bundle
    from ..runtime import Recommender, Verification
    from ..runtime.files import InferCounts, ItemList, beside, check_outputs, filter_of
    from ..runtime.files import infer as serve
    from ..runtime.recommender import check_k

    piped = str(output) == "-"
    rejects = rejects or (None if piped else beside(output, ".rejects.jsonl"))
    verification = Verification(mode, scoring, slack, temperature, seed)
    claim_outputs(output, rejects)
    check_outputs(output, rejects, [*histories, *filter(None, (allow, deny))], overwrite)
    entries = read_histories(histories, format=format, item_base=item_base, keep_read=True)
    allow_list, deny_list = (None if path is None else ItemList.read(path) for path in (allow, deny))
    shape = shape_by_hand(draft_width, draft_length)
    opened = Bundle.open(bundle)
    check_k(top_k, opened.manifest.max_top_k)
    recommender = Recommender.open(
        opened, engine=engine, drafter=drafter, pool=pool, speculation=speculation, shape=shape,
        verification=verification, batch_size=batch_size, threads=threads,
    )  # fmt: skip
    allowed = filter_of(allow_list, deny_list, recommender.catalog, warn=partial(click.echo, err=True))
    counts, start = InferCounts(), perf_counter()
    with Bars() as bars:
        lines = serve(
            recommender, islice(entries, limit), top_k, counts, item_filter=allowed, exclude_history=exclude_history,
            stats=stats, progress=lambda served: bars("users", served, limit), warn=partial(click.echo, err=True),
        )  # fmt: skip
        write_results(lines, output, rejects, overwrite=overwrite)
    if counts.rejected and not counts.served:
        raise SpecBeamError(f"No request could be served: see the reasons {f'in {rejects}' if rejects else 'above'}.")
    if not counts.served:
        raise SpecBeamError(f"{', '.join(map(str, histories))}: no request in it. Expected at least one history.")
    click.echo(summary(recommender, counts, perf_counter() - start, rejects), err=piped)
    if counts.cut_files:
        raise SpecBeamError(
            f"{counts.cut_files} of the files could not be read to the end: see the reasons "
            f"{f'in {rejects}' if rejects else 'above'}. What was read is served{'' if piped else f', in {output}'}."
        )


@click.command()
@bundle_argument
@click.option("--history", required=True, metavar="IDS", help="Item ids, oldest first, with commas between them.")
@click.option("--output", "-o", "outputs", required=True, multiple=True, type=PathType, help=PICTURE_HELP)
@click.option("--top-k", "-k", default=10, show_default=True, type=click.IntRange(1), help="Items to recommend.")
@verify_option
@scoring_option
@mode_options
@click.option("--seed", type=int, help="relaxed, sampled: as for `specbeam infer`.")
@drafter_options
@speculation_option
@shape_options
@engine_option
@threads_option
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def explain(
    bundle: Path, history: str, outputs: tuple[Path, ...], top_k: int, mode: Any, scoring: Any, slack: float | None,
    temperature: float | None, seed: int | None, drafter: Any, pool: Path | None,
    speculation: Literal["auto", "fixed"] | None, draft_width: int | None, draft_length: int | None,
    engine: str | None, threads: int | None, overwrite: bool,
) -> None:  # fmt: skip
    """Draw how one list came about: what was drafted, needed, missed, and what both models thought of it.

    \b
    Examples:
      specbeam explain bundle --history 11,202,87 --output tree.html
      specbeam explain bundle --history 11,202,87 --top-k 20 --draft-width 80 -o tree.svg -o tree.png
      specbeam explain bundle --history 11,202,87 --pool item-pool --speculation fixed -o tree.html
    """
    from ..explain import explain as explained
    from ..picture import chart, check_kind, save
    from ..runtime import Recommender, Verification
    from ..runtime.files import check_outputs

    claim_outputs(*outputs)
    for output in outputs:
        check_kind(output)
        check_outputs(output, None, [], overwrite)
    shape = shape_by_hand(draft_width, draft_length)
    recommender = Recommender.open(
        bundle, engine=engine, drafter=drafter, pool=pool, speculation=speculation, shape=shape,
        verification=Verification(mode, scoring, slack, temperature, seed), batch_size=1, threads=threads,
    )  # fmt: skip
    items = [item.strip() for item in history.split(",") if item.strip()]
    unknown = [item for item in items if item not in recommender.catalog.position]
    explanation = explained(recommender, items, top_k)
    if unknown:
        click.echo(f"Left out of the history, because the catalog lacks them: {', '.join(unknown)}", err=True)
    picture = chart(explanation)
    for output in outputs:
        save(picture, output, overwrite=overwrite)
    click.echo(f"{explanation.headline}\nWrote {', '.join(map(str, outputs))}")
    if not explanation.drafted and speculation is None and shape is None:
        click.echo("Where there is a draft, --speculation fixed shows what it would propose.", err=True)
