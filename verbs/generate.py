"""Knowledge text: generate writes it."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import click

from ..catalog.checks import MOST_THREADS
from .cluster_run import FolderRun
from .generate_runs import Ran, asked, here, spread_over
from .long_run import LongRun
from .options import (
    OUTPUT_HELP,
    SPECULATIONS,
    FileOrPipe,
    FileOrUri,
    PathType,
    batch_option,
    bundle_argument,
    engine_option,
    flags,
    given,
    ray_options,
    strict_option,
    threads_option,
    together,
)
from .output import conclude
from .values import Running, Writing, batching_value, collected, running_value, writing_value

if TYPE_CHECKING:
    from ..catalog.histories.storage import Place
    from ..engines.bundle.texts import TextBundle
    from ..runtime import Batching
    from ..runtime.runs.log import RunFacts
    from ..runtime.runs.windows import Outcomes
    from ..text import GenerationStats, TextDrafting, TextVerification

EXAMPLE = '{"id": "u1", "prompt": "..."}'
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


@dataclass(frozen=True)
class Texts:
    """What is asked of texts."""

    max_new_tokens: int | None
    stop: tuple[str, ...]
    limit: int | None
    stats: bool

    @property
    def most(self) -> int:
        """Tokens of a text whose prompt does not say it."""
        from ..text.generator import MAX_NEW_TOKENS

        return self.max_new_tokens or MAX_NEW_TOKENS


@dataclass(frozen=True)
class Drafts:
    """What drafts texts, and how much."""

    pool: Path | None
    drafter: Literal["pool", "none"]
    live: bool
    speculation: Literal["auto", "fixed"] | None
    draft_tokens: int | None
    depth: int | None
    query: int | None
    backoff: bool | None
    prompt_weight: float | None
    min_share: float | None

    @property
    def _shape(self) -> dict[str, Any]:
        names = ("draft_tokens", "depth", "query", "backoff", "prompt_weight", "min_share")
        return given({name: getattr(self, name) for name in names})

    @property
    def drafting(self) -> "TextDrafting | None":
        """How much is drafted; None: nothing."""
        from ..text import TextDrafting

        return TextDrafting(**self._shape) if self.drafter == "pool" else None

    def check(self, verification: "TextVerification") -> None:
        """Raise `OptionError` for options that mean nothing together."""
        from ..catalog.errors import OptionError

        if self.drafter != "none":
            return
        if self._shape or self.speculation or self.pool or verification.mode == "relaxed":
            raise OptionError(
                "without a drafter nothing is drafted: leave out the pool, its options and --verify relaxed."
            )


def _verification(mode: Any, accept_top_k: int | None, threshold: float | None) -> "TextVerification":
    from ..catalog.errors import OptionError
    from ..text import TextVerification

    own = given({"accept_top_k": accept_top_k, "threshold": threshold})
    if own and mode != "relaxed":
        raise OptionError(f"{flags(own)}: for --verify relaxed only. Leave that out, or verify so.")
    return TextVerification(mode, **own)


@click.command()
@bundle_argument
@click.argument("prompts", type=FileOrUri())
@click.option("--output", "-o", required=True, type=FileOrPipe, help=OUTPUT_HELP)
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
@ray_options
@click.option(
    "--workers",
    type=click.IntRange(1, MOST_THREADS),
    help="With --ray: processes. Default: as many as the cluster has room for.",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(1), help="Read only the first LIMIT prompts.")
@click.option("--stats", is_flag=True, help="Write each text's target calls, drafted and accepted tokens.")
@click.option("--rejects", type=PathType, help="Where unusable lines go. Default: OUTPUT.rejects.jsonl.")
@strict_option
@click.option("--overwrite", is_flag=True, help="Replace an existing output, and what an interrupted run left.")
@collected("texts", Texts)
@collected("drafts", Drafts)
@collected("verification", _verification)
@running_value
@batching_value
@writing_value
def generate(
    bundle: Path, prompts: "Place", texts: Texts, drafts: Drafts, verification: "TextVerification",
    running: Running, batching: "Batching", writing: Writing,
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
      specbeam generate bundle prompts/ -o texts --pool pool --ray --workers 4
      cat prompts.jsonl | specbeam generate bundle - --output - --drafter none > texts.jsonl
    """
    from ..engines.bundle.texts import TextBundle
    from ..text.files import Generating

    start = perf_counter()
    drafts.check(verification)
    engine = running.engine
    run = asked(running, writing, prompts)
    opened = TextBundle.open(bundle)
    name, _ = engine.of(opened)
    generating = Generating(
        opened.path, replace(engine, name=name), drafts.pool, drafts.drafting, drafts.live, drafts.speculation,
        verification, texts.stop, batching, texts.most, texts.stats,
    )  # fmt: skip
    facts = partial(_facts, opened, name, texts, drafts, verification, batching)
    if isinstance(run, FolderRun):
        ran = spread_over(run, prompts, generating, opened, running.workers, texts.limit, facts)
    else:
        ran = here(run, prompts, generating, opened, texts.limit, facts)
    _conclude(ran, run, prompts, perf_counter() - start)
    done = f"{ran.counts.served} texts were written{f': see {run.output}' if ran.counts.served else ''}."
    conclude(ran.counts, done, strict=writing.strict_input)


def _conclude(ran: Ran, run: LongRun | FolderRun, prompts: "Place", seconds: float) -> None:
    """Tell what a run did; raise `SpecBeamError` where there was nothing to do."""
    from ..catalog.errors import SpecBeamError

    counts = ran.counts
    if not counts.tried:
        told = (
            f"see the reasons {f'in {run.rejects}' if run.rejects else 'above'}" if counts.rejected else "there is none"
        )
        raise SpecBeamError(f"{prompts}: no prompt could be used: {told}. Expected lines such as {EXAMPLE}.")
    click.echo(_summary(ran.stats, counts, ran.earlier, seconds, run.rejects), err=run.piped)


def _facts(
    bundle: "TextBundle", engine: str, texts: Texts, drafts: Drafts, verification: "TextVerification",
    batching: "Batching", read: dict[str, str | None], **spread: int,
) -> "RunFacts":  # fmt: skip
    """What must be the same where an interrupted run is gone on with; spread: how, over several machines."""
    from msgspec.structs import asdict

    from ..runtime.runs.log import RunFacts, engine_identity

    return RunFacts(
        verb="generate", bundle=bundle.manifest.checksum, engine=engine_identity(bundle, engine), read=read,
        options=vars(verification) | (asdict(drafts.drafting) if drafts.drafting else {}) | {
            "max_new_tokens": texts.most, "stop": texts.stop, "drafter": drafts.drafter, "live": drafts.live,
            "stats": texts.stats, "speculation": drafts.speculation, "batch_size": batching.size, "limit": texts.limit,
        } | spread,
    )  # fmt: skip


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
