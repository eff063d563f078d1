"""An evaluation as text: Markdown tables that fit 120 columns, and what their headings mean."""

from collections.abc import Callable, Iterator, Sequence

from ..engines.bundle.names import EngineName
from ..runtime.metrics import Estimate
from ..runtime.types import DrafterKind
from .bench import Setup
from .figures import AtK, Pace, Part
from .run import Evaluation
from .settings import Search

Row = Sequence[str]
QUALITY_TOLD = """\
Recall@K: share of a request's labels that its K items hold.
NDCG@K: likewise, high ranks counting more; 1 is the best list there is.
R warm, R cold: Recall@K on labels that occur in training histories, and on the others.
coverage: share of the bundle's items that occur in any list.
Brackets, here and below: 95 % intervals."""
WORK_TOLD = """\
target calls, draft calls: calls of each model in which a request had tokens; -: the draft was never asked.
AS@K: accept steps, the tokens of the longest identifier ({length}) less target calls.
nodes: beginnings of identifiers that the target evaluated.
acceptance by depth: of the nodes the search needed, the share that had been evaluated ahead; -: nothing was."""
DIFFERENCE_TOLD = "The mode less {first}: above 0 it has more. An interval without 0 is a difference."
PACE_TOLD = """\
ms a request: from its history to its list; a request's share of its batch.
WS@K: walltime speed-up: how many times as fast as the baseline, in the same rounds (below 1: slower)."""
SAME_TOLD = "\nas plain: nothing was drafted, so the work was plain's, and so are the times."


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
        f"{setup.bundle}: {data.items:,} items, L = {setup.identifier_length}, {setup.engine}",
        machine(setup),
        *(f"{mode.search.name}: {drafting(mode.search, setup.drafter)}" for mode in evaluation.modes),
    ]
    return "\n".join(lines)


def machine(setup: Setup) -> str:
    """Where, and with what, times were measured."""
    backend = EngineName.of(setup.engine).backend
    named = {
        "onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX", "torch": "PyTorch",
    }.get(backend, backend)  # fmt: skip
    return (
        f"{setup.processor}, processors: {setup.processors}, threads of an engine: {setup.threads}, "
        f"{named} {setup.versions[backend]}"
    )


def drafting(search: Search, drafter: DrafterKind | None) -> str:
    """How a search drafts, scores and draws."""
    shape = search.shape
    match search.drafting:
        case "nothing":
            said = "beam search without drafting"
        case "auto":
            said = "drafts what pays (auto)"
        case "fixed":
            said = f"{shape.width} nodes at each of {shape.length} depths drafted (fixed)" if shape else ""
    if search.drafting != "nothing" and drafter in ("retrieval", "both"):
        said += " from a pool" + (" and the draft model" if drafter == "both" else "")
    more = {"slack": search.slack, "temperature": search.temperature, "seed": search.seed}
    return ", ".join([said, f"{search.scoring} scoring", *(f"{k} {v:g}" for k, v in more.items() if v is not None)])


def _quality(evaluation: Evaluation) -> str:
    heads = ["mode", "K", "Recall@K", "NDCG@K", "R warm", "R cold", "coverage"]

    def cells(at: AtK) -> Row:
        return _of(at.recall, ".4"), _of(at.ndcg, ".4"), _recall(at.warm), _recall(at.cold), f"{at.coverage:.2%}"

    return table("Ranking quality", heads, _by_mode(evaluation, cells), QUALITY_TOLD)


def _work(evaluation: Evaluation) -> str:
    heads = ["mode", "K", "target calls", "AS@K", "draft calls", "nodes", "acceptance by depth"]

    def cells(at: AtK) -> Row:
        some = any(rate is not None for rate in at.acceptance)
        rates = " / ".join("-" if rate is None else f"{rate:.1%}" for rate in at.acceptance) if some else "-"
        steps, draft, nodes = at.accept_steps.value, at.draft_calls.value, at.nodes.value
        calls = f"{draft:.2f}" if draft else "-"
        return _of(at.target_calls, ".2"), f"{steps:.2f}", calls, f"{nodes:.0f}", rates

    told = WORK_TOLD.format(length=evaluation.setup.identifier_length)
    return table("Work, means of a request", heads, _by_mode(evaluation, cells), told)


def _differences(evaluation: Evaluation) -> str:
    first = evaluation.modes[0].search.name
    heads = ["mode", "K", "Recall@K, difference", "NDCG@K, difference", "target calls, difference"]

    def cells(at: AtK) -> Row | None:
        gap = at.difference
        return None if gap is None else (_of(gap.recall, "+.4"), _of(gap.ndcg, "+.4"), _of(gap.target_calls, "+.2"))

    title = f"Differences to {first}, request by request"
    return table(title, heads, _by_mode(evaluation, cells), DIFFERENCE_TOLD.format(first=first))


def _paces(evaluation: Evaluation) -> str:
    """Walltime, by batch size and contestant."""
    bases = dict.fromkeys(base for pace in evaluation.paces for base in pace.speedup)
    groups: dict[tuple[int, str], list[Pace]] = {(pace.batch, pace.name): [] for pace in evaluation.paces}
    for pace in evaluation.paces:
        groups[pace.batch, pace.name].append(pace)
    rows: list[Row] = []
    for (batch, name), group in groups.items():
        for i, pace in enumerate(group):
            ratios = (_of(pace.speedup[base], ".2") if base in pace.speedup else "-" for base in bases)
            spent = _of(pace.milliseconds, ".2")
            if pace.same_as is not None:
                spent, ratios = f"as {pace.same_as}", ("-" for _ in bases)
            rows.append([name if i == 0 else "", str(batch), str(pace.k), spent, *ratios])
    heads = ["mode", "batch", "K", "ms a request", *(f"WS@K, {base}" for base in bases)]
    told = PACE_TOLD + SAME_TOLD * any(pace.same_as for pace in evaluation.paces)
    return table(f"Walltime, medians of {evaluation.paces[0].rounds} rounds", heads, rows, told)


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


def _of(number: Estimate, form: str) -> str:
    """form: the format of each of the three, but for the letter f."""
    return "{:{form}f} [{:{form}f}, {:{form}f}]".format(number.value, number.low, number.high, form=form)


def table(title: str, heads: Row, rows: Iterator[Row] | Sequence[Row], told: str) -> str:
    """told: what the headings mean."""
    filled = [list(heads), *map(list, rows)]
    widths = [max(len(row[i]) for row in filled) for i in range(len(heads))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
             for row in filled]  # fmt: skip
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([f"{title}:", "", lines[0], rule, *lines[1:], "", told])
