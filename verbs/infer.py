"""Top-K lists for histories from files: infer."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click

from ..catalog.errors import SpecBeamError
from .cluster_run import FolderRun
from .infer_runs import Ran, asked, facts_of, here, spread_over
from .lists import Lists
from .long_run import LongRun
from .options import (
    OUTPUT_HELP,
    FileOrPipe,
    PathType,
    Share,
    batch_option,
    bundle_argument,
    drafter_options,
    engine_option,
    format_options,
    histories_argument,
    memory_option,
    ray_options,
    scoring_option,
    shape_options,
    speculation_option,
    strict_option,
    threads_option,
    verify_option,
    workers_option,
)
from .output import conclude, summary
from .values import (
    HistoryFiles,
    Running,
    Writing,
    batching_value,
    collected,
    drafting_value,
    histories_value,
    running_value,
    verification_value,
    writing_value,
)

if TYPE_CHECKING:
    from ..catalog.histories.storage import Place
    from ..runtime import Batching, Drafting, Verification
    from ..runtime.chosen import Chosen
    from ..runtime.runs.inference import InferCounts

TOP_K_HELP = "Items for each request that does not ask for a number of its own."
WHEN_EMPTY, SHARE = click.Choice(["reject", "popular"]), Share(0, 1, min_open=True)
WHEN_EMPTY_HELP = (
    "What users get who have no history, or one of unknown items. popular: the items that are popular with others, by "
    '--popular FILE or else --pool; filters hold, and the line says "popular": true.'
)
SAMPLE_HELP = (
    "Rank such a share of the lists again, by plain beam search on an engine of the exported precision, and tell how "
    "they compare, e.g. 0.01; for strict and sampled."
)
OVERLAP_HELP = (
    "With --verify-sample: exit with 1 where the mean overlap of both lists is less. Default: 1 (but for ties of less "
    "than 1e-4) for an engine in fp32 of a bundle in fp32, 0.9 for one that rounds."
)
SLACK_HELP = "tolerant (which needs it): how much lower than the node it replaces a stand-in may score, e.g. 0.1."


@click.command()
@bundle_argument
@histories_argument
@click.option("--output", "-o", required=True, type=FileOrPipe, help=OUTPUT_HELP)
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
@memory_option
@threads_option
@workers_option
@ray_options
@format_options
@click.option("--limit", type=click.IntRange(1), help="Read only the first LIMIT requests.")
@click.option("--stats", is_flag=True, help="Write each request's target calls, draft calls and evaluated nodes.")
@click.option("--rejects", type=PathType, help="Where unusable lines go. Default: OUTPUT.rejects.jsonl.")
@click.option("--when-empty", type=WHEN_EMPTY, default="reject", show_default=True, help=WHEN_EMPTY_HELP)
@click.option("--popular", type=PathType, help="File of item ids, one a line, the most popular first.")
@click.option("--verify-sample", type=SHARE, metavar="SHARE", help=SAMPLE_HELP)
@click.option("--verify-overlap", type=Share(0, 1), metavar="SHARE", help=OVERLAP_HELP)
@strict_option
@click.option("--overwrite", is_flag=True, help="Replace an existing output, and what an interrupted run left.")
@histories_value
@collected("lists", Lists)
@verification_value
@drafting_value
@running_value
@batching_value
@writing_value
def infer(
    bundle: Path, files: HistoryFiles, lists: Lists, verification: "Verification", drafting: "Drafting",
    running: Running, batching: "Batching", writing: Writing,
) -> None:  # fmt: skip
    """Write the top-K items for every history: one JSON line a request, in the input's order.

    A line of HISTORIES is such as {"user": "u1", "items": ["11", "4"]}, oldest item first. It may hold a "k" of its
    own, "allow" and "deny", lists of item ids, and "exclude_history": true; other keys are ignored. A result that is
    shorter than was asked for, because no more items are allowed, says how many are "available".

    An interrupted run leaves OUTPUT.partial, and goes on with it when the same command is run again; its output is the
    same as that of a run in one go (with --speculation auto: the same lists). Ctrl-C and SIGTERM stop it between two
    batches.

    \b
    Examples:
      specbeam infer bundle histories.jsonl --output recs.jsonl --top-k 20
      specbeam infer bundle histories.jsonl -o recs.jsonl --exclude-history --allow in_stock.txt
      specbeam infer bundle histories.jsonl -o recs.jsonl --verify sampled --temperature 0.7 --seed 11
      specbeam infer bundle sequential_train.txt sequential_valid.txt --item-base 1 -o recs.jsonl
      specbeam infer bundle histories.jsonl -o recs.jsonl --pool item-pool --drafter retrieval
      specbeam infer bundle histories.jsonl -o recs.jsonl --when-empty popular --popular bestsellers.txt
      specbeam infer bundle histories.jsonl -o recs.jsonl --engine onnxruntime-cpu-int8 --verify-sample 0.01
      specbeam infer bundle histories.jsonl -o recs.jsonl --workers 2
      specbeam infer bundle histories.jsonl -o recs.jsonl --top-k 1000 --memory 2GB
      specbeam infer bundle s3://shop/histories/ -o recs --ray --ray-address 10.0.0.1:6379
      zcat histories.jsonl.gz | specbeam infer bundle - --output - --rejects bad.jsonl | gzip > recs.jsonl.gz
    """
    from ..engines.bundle.items import Bundle
    from ..runtime.chosen import Chosen
    from ..runtime.encoding import check_k
    from ..runtime.runs.item_lists import ItemList
    from ..runtime.runs.recheck import least_overlap, reference_engine
    from ..runtime.runs.shared import Serving

    start, warn = perf_counter(), partial(click.echo, err=True)
    drafting = replace(drafting, keep=running.cluster is None)  # what nodes learn is nobody's to keep
    lists.check(drafting)
    run, read = asked(running, writing, files, lists)
    allow, deny = (None if path is None else ItemList.read(path) for path in (lists.allow, lists.deny))
    opened = Bundle.open(bundle)
    check_k(lists.top_k, opened.manifest.max_top_k)
    (name, _), pool = running.engine.of(opened), drafting.opened_pool()
    engine = replace(running.engine, name=name)
    chosen = Chosen.of(
        opened, engine=engine, drafting=replace(drafting, pool=pool), verification=verification, batching=batching
    )
    wanted = lists.wanted(chosen.items[0], allow, deny, pool, warn)
    serving = Serving(opened.path, engine, drafting, verification, batching, wanted, lists.verify_sample)
    facts = partial(facts_of, opened, name, files, lists, verification, drafting, batching)
    if isinstance(run, FolderRun):
        ran = spread_over(run, read, serving, chosen, running.workers, lists, facts)
    else:
        ran = here(run, read, serving, chosen, running.workers or 1, files, lists, facts, warn)
    _conclude(ran, chosen, run, perf_counter() - start, files.histories)
    if lists.verify_sample:
        least = least_overlap(opened, name) if lists.verify_overlap is None else lists.verify_overlap
        _conclude_sample(ran.counts, reference_engine(opened), least, run.piped)
    done = f"{ran.counts.served} were served{f': see {run.output}' if ran.counts.served else ''}."
    conclude(ran.counts, done, strict=writing.strict_input)


def _conclude(
    ran: Ran, chosen: "Chosen", run: LongRun | FolderRun, seconds: float, histories: "tuple[Place, ...]"
) -> None:
    """Tell what a run did; raise `SpecBeamError` where there was nothing to do, or not all could be read."""
    counts = ran.counts
    told = f"see the reasons {f'in {run.rejects}' if run.rejects else 'above'}"
    if counts.rejected and not counts.tried:
        raise SpecBeamError(f"No request could be served: {told}.")
    if not counts.tried:
        raise SpecBeamError(f"{', '.join(map(str, histories))}: no request in it. Expected at least one history.")
    click.echo(summary(ran.stats, chosen, counts, ran.earlier, seconds, run.rejects), err=run.piped)
    if counts.cut_files:
        raise SpecBeamError(
            f"{counts.cut_files} of the files could not be read to the end: {told}. What was read is "
            f"served{'' if run.piped else f', in {run.output}'}."
        )


def _conclude_sample(counts: "InferCounts", reference: str, least: float, piped: bool) -> None:
    """Tell how the lists that were ranked again compare; raise `SpecBeamError` where it is too badly."""
    number = counts.ranked_again
    if not number:
        click.echo("none of the lists was ranked again: there are too few for the sample", err=True)
        return
    mean = counts.overlap / number
    told = (
        f"{number} lists were ranked again by plain beam search on {reference}: overlap {mean:.4%}, {counts.agreeing} "
        f"hold the same items; scores of shared items differ by {counts.difference / number:.1e} (the most of a list, "
        f"on average), {counts.largest:.1e} at most"
    )
    if mean < least:
        remedy = "it does not rank as what was exported: build it again, or export again"
        if least < 1:
            remedy = "build it in another precision, or with other calibration data; --verify-overlap asks for less"
        raise SpecBeamError(f"{told}. Expected of the engine an overlap of at least {least:.4%}: {remedy}.")
    click.echo(told, err=piped)
