"""An evaluation as text: Markdown tables that fit 120 columns."""

from collections.abc import Callable, Iterator, Sequence

from ..runtime.metrics import Estimate
from ..runtime.types import DrafterKind
from .figures import AtK, Pace, Part
from .run import Evaluation
from .settings import Search

Row = Sequence[str]


def described(evaluation: Evaluation) -> str:
    """The whole evaluation, modes grouped; numbers in brackets are 95 % intervals."""
    parts = [_head(evaluation), _quality(evaluation), _work(evaluation)]
    if any(at.difference for mode in evaluation.modes for at in mode.at):
        parts.append(_differences(evaluation))
    if evaluation.paces:
        parts.append(_paces(evaluation))
    if checked := [at.differing for mode in evaluation.modes for at in mode.at if at.differing is not None]:
        total = len(checked) * evaluation.data.requests
        parts.append(f"{total - sum(checked)} of {total} strict lists are those of plain beam search.")
    parts += [f"Note: {note}." for note in evaluation.notes]
    return "\n\n".join(parts)


def _head(evaluation: Evaluation) -> str:
    data, setup = evaluation.data, evaluation.setup
    several = f" of {data.users:,} users" if data.users != data.requests else ""
    warm = "" if data.warm_labels is None else f" ({data.warm_labels / data.labels:.0%} warm)"
    lines = [
        f"{data.folder}, {data.split}: {data.requests:,} requests{several}, {data.labels:,} labels{warm}",
        f"{setup.bundle}: {data.items:,} items, L = {setup.identifier_length}, {setup.engine}, {setup.threads} threads",
        *(f"{mode.search.name}: {_drafting(mode.search, setup.drafter)}" for mode in evaluation.modes),
    ]
    return "\n".join(lines)


def _drafting(search: Search, drafter: DrafterKind | None) -> str:
    shape = search.shape
    match search.drafting:
        case "nothing":
            said = "beam search without drafting"
        case "auto":
            said = "drafts what pays"
        case _:
            said = f"{shape.width} nodes at each of {shape.length} depths drafted" if shape else ""
    if search.drafting != "nothing" and drafter in ("retrieval", "both"):
        said += " from a pool" + (" and the draft model" if drafter == "both" else "")
    more = {"slack": search.slack, "temperature": search.temperature, "seed": search.seed}
    return ", ".join([said, f"{search.scoring} scoring", *(f"{k} {v:g}" for k, v in more.items() if v is not None)])


def _quality(evaluation: Evaluation) -> str:
    heads = ["mode", "K", "Recall@K", "NDCG@K", "R warm", "R cold", "coverage"]

    def cells(at: AtK) -> Row:
        return _of(at.recall, 4), _of(at.ndcg, 4), _recall(at.warm), _recall(at.cold), f"{at.coverage:.2%}"

    return _table("Ranking quality", heads, _by_mode(evaluation, cells))


def _work(evaluation: Evaluation) -> str:
    heads = ["mode", "K", "target calls", "AS@K", "draft calls", "nodes", "acceptance by depth"]

    def cells(at: AtK) -> Row:
        rates = " / ".join("-" if rate is None else f"{rate:.1%}" for rate in at.acceptance)
        steps, draft, nodes = at.accept_steps.value, at.draft_calls.value, at.nodes.value
        return _of(at.target_calls, 2), f"{steps:.2f}", f"{draft:.2f}", f"{nodes:.0f}", rates

    return _table("Work a request", heads, _by_mode(evaluation, cells))


def _differences(evaluation: Evaluation) -> str:
    heads = ["mode", "K", "Recall@K", "NDCG@K", "target calls"]

    def cells(at: AtK) -> Row | None:
        gap = at.difference
        return None if gap is None else (_of(gap.recall, 4), _of(gap.ndcg, 4), _of(gap.target_calls, 2))

    first = evaluation.modes[0].search.name
    return _table(f"Less {first}, request by request", heads, _by_mode(evaluation, cells))


def _paces(evaluation: Evaluation) -> str:
    """Walltime, by batch size and contestant."""
    bases = dict.fromkeys(base for pace in evaluation.paces for base in pace.speedup)
    groups: dict[tuple[int, str], list[Pace]] = {(pace.batch, pace.name): [] for pace in evaluation.paces}
    for pace in evaluation.paces:
        groups[pace.batch, pace.name].append(pace)
    rows: list[Row] = []
    for (batch, name), group in groups.items():
        for i, pace in enumerate(group):
            ratios = (_of(pace.speedup[base], 2) if base in pace.speedup else "" for base in bases)
            rows.append([name if i == 0 else "", str(batch), str(pace.k), _of(pace.milliseconds, 2), *ratios])
    heads = ["mode", "batch", "K", "ms a user", *(f"WS@K, {base}" for base in bases)]
    return _table(f"Walltime, medians of {evaluation.paces[0].rounds} rounds", heads, rows)


def _by_mode(evaluation: Evaluation, cells: Callable[[AtK], Row | None]) -> Iterator[Row]:
    """A row for every mode and K that has cells, the mode's name in its first only."""
    for mode in evaluation.modes:
        name = mode.search.name
        for at in mode.at:
            own = cells(at)
            if own is not None:
                yield [name, str(at.k), *own]
                name = ""


def _recall(part: Part | None) -> str:
    return "-" if part is None else f"{part.recall.value:.4f}"


def _of(number: Estimate, digits: int) -> str:
    return f"{number.value:.{digits}f} [{number.low:.{digits}f}, {number.high:.{digits}f}]"


def _table(title: str, heads: Row, rows: Iterator[Row] | Sequence[Row]) -> str:
    filled = [list(heads), *map(list, rows)]
    widths = [max(len(row[i]) for row in filled) for i in range(len(heads))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
             for row in filled]  # fmt: skip
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([f"{title}:", "", lines[0], rule, *lines[1:]])
