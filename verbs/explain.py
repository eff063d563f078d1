"""How one list came about, as a picture: explain."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import (
    PICTURE_HELP,
    PathType,
    bundle_argument,
    drafter_options,
    engine_option,
    mode_options,
    scoring_option,
    shape_options,
    speculation_option,
    threads_option,
    verify_option,
)
from .output import claim_outputs
from .values import drafting_value, engine_value, verification_value

if TYPE_CHECKING:
    from ..runtime import Drafting, EngineChoice, Verification


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
@verification_value
@drafting_value
@engine_value
def explain(
    bundle: Path, history: str, outputs: tuple[Path, ...], top_k: int, overwrite: bool, verification: "Verification",
    drafting: "Drafting", engine: "EngineChoice",
) -> None:  # fmt: skip
    """Draw how one list came about: what was drafted, needed, missed, and what both models thought of it.

    \b
    Examples:
      specbeam explain bundle --history 11,202,87 --output tree.html
      specbeam explain bundle --history 11,202,87 --top-k 20 --draft-width 80 -o tree.svg -o tree.png
      specbeam explain bundle --history 11,202,87 --pool item-pool --speculation fixed -o tree.html
    """
    from ..evaluate.explain import explain as explained
    from ..evaluate.tree_picture import chart, check_kind, save
    from ..runtime import Recommender
    from ..runtime.planning.planner import Planner
    from ..runtime.runs.inference import check_outputs

    claim_outputs(*outputs)
    for output in outputs:
        check_kind(output)
        check_outputs(output, None, [], overwrite)
    recommender = Recommender.open(bundle, engine=engine, drafting=drafting, verification=verification, batching=1)
    items = [item.strip() for item in history.split(",") if item.strip()]
    unknown = [item for item in items if item not in recommender.catalog.position]
    explanation = explained(recommender, items, top_k)
    if unknown:
        click.echo(f"Left out of the history, because the catalog lacks them: {', '.join(unknown)}", err=True)
    picture = chart(explanation)
    for output in outputs:
        save(picture, output, overwrite=overwrite)
    click.echo(f"{explanation.headline}\nWrote {', '.join(map(str, outputs))}")
    if not explanation.drafted and isinstance(recommender.planning, Planner) and recommender.planning.draft:
        click.echo("auto drafted nothing; --speculation fixed shows what would be drafted.", err=True)
