"""Knowledge text: generate writes it."""

from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import click

from .long_run import LongRun, Progress, pool_files
from .options import (
    SPECULATIONS,
    FileOrPipe,
    PathType,
    batch_option,
    bundle_argument,
    engine_option,
    flags,
    given,
    strict_option,
    threads_option,
    together,
)
from .output import Bars, conclude

if TYPE_CHECKING:
    from ..runtime.runs.windows import Outcomes, Sink
    from ..text import GenerationStats, TextGenerator

AGAIN = "Pass --overwrite to begin anew."
EXAMPLE = '{"id": "u1", "prompt": "..."}'
DRAFTERS, MODES = click.Choice(["pool", "none"]), click.Choice(["strict", "relaxed"])
SPECULATION_HELP = (
    "How much of a draft is sent. auto: as much as pays, by measured latency and what has passed. fixed: all of it. "
    "Default: auto with strict verification; relaxed texts depend on it."
)
VERIFY_HELP = (
    "strict: exactly the target's greedy decoding. relaxed: a drafted token also passes if it is among the target's "
    "--accept-top-k and more likely than --threshold: fewer calls, and other words."
)
POOL_HELP = "Earlier texts to draft from, as `specbeam build-pool` makes. Without it: the prompt, and this run's texts."

drafting_options = together(
    click.option("--speculation", type=SPECULATIONS, help=SPECULATION_HELP),
    click.option("--draft-tokens", type=click.IntRange(1), help="Most tokens drafted for a call. Default: 64."),
    click.option("--depth", type=click.IntRange(1), help="Longest branch of a draft. Default: 12."),
    click.option("--query", type=click.IntRange(1), help="Most tokens that are looked up. Default: 4 (LASER: 2)."),
    click.option("--backoff/--no-backoff", default=None, help="Fill up with what follows fewer tokens."),
    click.option("--prompt-weight", type=float, help="Of an occurrence in the prompt, beside one in the pool."),
    click.option("--min-share", type=float, help="Leave out branches that followed more rarely, e.g. 0.1. Default: 0."),
)


@click.command()
@bundle_argument
@click.argument("prompts", type=FileOrPipe)
@click.option("--output", "-o", required=True, type=FileOrPipe, help="JSON lines; - is standard output.")
@click.option("--pool", type=PathType, help=POOL_HELP)
@click.option(
    "--drafter", type=click.Choice(["pool", "none"]), default="pool", show_default=True, help="none: one token a call."
)
@click.option(
    "--verify", "mode", type=click.Choice(["strict", "relaxed"]), default="strict", show_default=True, help=VERIFY_HELP
)
@click.option("--accept-top-k", type=click.IntRange(1), help="relaxed: how many tokens may pass. Default: 2.")
@click.option("--threshold", type=float, help="relaxed: probability that a token must exceed. Default: 0.1.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Where a prompt does not say it. Default: 1024.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End a text before this; several may be given.")
@drafting_options
@click.option("--live/--no-live", default=True, show_default=True, help="Let this run's texts draft for later ones.")
@engine_option
@batch_option
@threads_option
@click.option("--limit", type=click.IntRange(1), help="Read only the first LIMIT prompts.")
@click.option("--stats", is_flag=True, help="Write each text's target calls, drafted and accepted tokens.")
@click.option("--rejects", type=PathType, help="Where unusable lines go. Default: OUTPUT.rejects.jsonl.")
@strict_option
@click.option("--overwrite", is_flag=True, help="Replace an existing output, and what an interrupted run left.")
def generate(
    bundle: Path, prompts: Path, output: Path, pool: Path | None, drafter: Literal["pool", "none"], mode: Any,
    accept_top_k: int | None, threshold: float | None, max_new_tokens: int | None, stop: tuple[str, ...], live: bool,
    speculation: Literal["auto", "fixed"] | None, engine: str | None, batch_size: int, threads: int | None,
    limit: int | None, stats: bool, rejects: Path | None, strict_input: bool, overwrite: bool, **shape: Any,
) -> None:  # fmt: skip
    """Write a text behind every prompt: one JSON line each, with the prompt's id.

    A line of PROMPTS is such as {"id": "u1", "prompt": "..."}. It may name a "group" of the pool (default: the id's)
    and its own "max_new_tokens"; other keys are ignored. An interrupted run leaves OUTPUT.partial and goes on with it
    when it is run again; the output is in the order of the prompts. To standard output texts come batch by batch.

    \b
    Examples:
      specbeam generate bundle prompts.jsonl --output texts.jsonl
      specbeam generate bundle prompts.jsonl -o texts.jsonl --pool pool --stop '###' --max-new-tokens 200
      specbeam generate bundle prompts.jsonl -o texts.jsonl --pool pool --verify relaxed --threshold 0.2
      cat prompts.jsonl | specbeam generate bundle - --output - --drafter none > texts.jsonl
    """
    from msgspec.structs import asdict

    from ..catalog.errors import SpecBeamError
    from ..engines.bundle.texts import TextBundle
    from ..engines.registry import chosen_engine
    from ..runtime.runs.log import RunFacts, engine_identity
    from ..runtime.runs.windows import Outcomes
    from ..text import Drafting, TextGenerator, TextVerification
    from ..text.files import Generation
    from ..text.generator import MAX_NEW_TOKENS
    from ..text.prompts import read_prompts

    own, shape, start = given({"accept_top_k": accept_top_k, "threshold": threshold}), given(shape), perf_counter()
    _check(own, mode, drafter, drafting=bool(shape or speculation or pool))
    run = LongRun(output, rejects, [prompts], overwrite=overwrite)
    opened = TextBundle.open(bundle)
    engine, max_new_tokens = chosen_engine(opened, engine), max_new_tokens or MAX_NEW_TOKENS
    drafting, verification = Drafting(**shape) if drafter == "pool" else None, TextVerification(mode, **own)
    generator = TextGenerator.open(
        opened, engine=engine, pool=pool, drafting=drafting, live=live, speculation=speculation,
        verification=verification, stop=stop, batch_size=batch_size, threads=threads,
    )  # fmt: skip
    job = Generation(generator, max_new_tokens=max_new_tokens, stats=stats, ahead=not run.piped)
    with Bars() as bars:
        facts = RunFacts(
            verb="generate", bundle=opened.manifest.checksum, engine=engine_identity(opened, engine),
            read=run.checksums({"prompts": prompts, **pool_files(pool)}, bars),
            options=vars(verification) | (asdict(drafting) if drafting else {}) | {
                "max_new_tokens": max_new_tokens, "stop": stop, "drafter": drafter, "live": live, "stats": stats,
                "speculation": speculation, "batch_size": batch_size, "limit": limit,
            },
        )  # fmt: skip
        with run.sink(facts, Outcomes(), bars) as sink:
            earlier = sink.counts.served
            _learn(generator, sink, bars, earlier)
            progress = Progress("texts", _total(prompts, limit))
            run.perform(job, islice(read_prompts(prompts), limit), sink, bars, progress)
    counts = sink.counts
    if not counts.tried:
        told = (
            f"see the reasons {f'in {run.rejects}' if run.rejects else 'above'}" if counts.rejected else "there is none"
        )
        raise SpecBeamError(f"{prompts}: no prompt could be used: {told}. Expected lines such as {EXAMPLE}.")
    click.echo(_summary(generator.stats, counts, earlier, perf_counter() - start, run.rejects), err=run.piped)
    done = f"{counts.served} texts were written{f': see {output}' if counts.served else ''}."
    conclude(counts, done, strict=strict_input)


def _total(prompts: Path, limit: int | None) -> int | None:
    """How many texts the progress bar expects: a line each; None where nobody can tell."""
    from ..catalog.records import is_regular

    if not is_regular(prompts):
        return limit
    with prompts.open("rb") as file:
        lines = sum(1 for _ in file)
    return min(lines, limit or lines)


def _check(own: dict[str, Any], mode: str, drafter: str, *, drafting: bool) -> None:
    """Raise `OptionError` for options that mean nothing together."""
    from ..catalog.errors import OptionError

    if own and mode != "relaxed":
        raise OptionError(f"{flags(own)}: for --verify relaxed only. Leave that out, or verify so.")
    if drafter == "none" and (drafting or mode == "relaxed"):
        raise OptionError("without a drafter nothing is drafted: leave out the pool, its options and --verify relaxed.")


def _learn(generator: "TextGenerator", sink: "Sink[Outcomes]", bars: Bars, earlier: int) -> None:
    """The texts of an earlier run draft for those to come, as they would have in one run."""
    import msgspec

    from ..catalog.bounds import DAMAGED
    from ..catalog.errors import SpecBeamError
    from ..runtime.runs.journal import Journal
    from ..text.files import TextLine

    if isinstance(sink, Journal):
        for number, data in enumerate(sink.results(), 1):
            try:
                text = msgspec.json.decode(data, type=TextLine)
            except DAMAGED as error:
                raise SpecBeamError(f"line {number} of the partial output is no text: {error}. {AGAIN}") from error
            generator.learn(text.text, text.finish, id=text.id, group=text.group)
            bars("earlier texts learned", number, earlier)


def _summary(stats: "GenerationStats", counts: "Outcomes", earlier: int, seconds: float, rejects: Path | None) -> str:
    """What a run did, in a few lines; earlier: texts that were written before it was interrupted."""
    rate = f"{stats.tokens / seconds:.1f} tokens/s"
    lines = [
        f"{counts.served - earlier} texts, {stats.tokens} tokens in {seconds:.1f} s: {rate}",
        f"tokens per target call {stats.tokens_per_call:.2f} (without drafting 1), of {stats.drafted} drafted tokens "
        f"{stats.accepted} are in the texts",
    ]
    parts = ("target", "retrieval", "verification", "cache", "other")
    shares = (f"{part} {getattr(stats, f'{part}_seconds') / max(stats.total_seconds, 1e-9):.0%}" for part in parts)
    lines.append(f"time: {', '.join(shares)}")
    if earlier:
        lines.append(f"{earlier} texts are of an earlier run that was interrupted")
    if counts.rejected:
        lines.append(f"{counts.rejected} lines were rejected" + (f": see {rejects}" if rejects else ""))
    return "\n".join(lines)
