"""Speculation planned by cost, beside no draft and fixed drafts: K x batch x prompt length, taking turns.

Every cell's figure for `auto` is its time over that of the best other contestant *of that cell*, chosen with
hindsight: the median over batches of the ratio of the two on the same batch. "no draft" runs twice; the same
figure of its two runs is the noise that a perfect planner would show.
"""

from argparse import ArgumentParser
from functools import partial
from itertools import cycle, islice
from statistics import median

import numpy as np
from tqdm import tqdm

from benchmarks.shared import arguments, dump, print_table, real_users, timed
from specbeam.engines.bundle.default import default_engine
from specbeam.engines.bundle.items import Bundle
from specbeam.evaluate.tune import tune
from specbeam.runtime import Drafting, DraftShape, EngineChoice, Recommender
from specbeam.runtime.options import Verification
from specbeam.runtime.planning.policy import FixedPlanning, Planning
from specbeam.runtime.planning.tuning_file import tuning_file

LONGEST = 100  # items of the longest history
TUNING_USERS = 256


def of_length(histories: list[list[str]], tokens: int, length: int, count: int) -> list[list[str]]:
    """`count` histories of as many items as make about `tokens` tokens; short ones go on with the next user's."""
    items = max(tokens // length, 1)
    chosen = []
    for user in range(count):
        following = (item for history in islice(cycle(histories), user, None) for item in history)
        chosen.append(list(islice(following, items)))
    return chosen


def contestants(k: int, auto: Planning, widest: int) -> dict[str, Planning]:
    """No draft, fixed drafts from small to large, and auto."""
    shapes = {(k, 1), (2 * k, 1), (widest, 1), (k, 3), (widest, 3)}
    fixed = {f"{w}x{n}": FixedPlanning(DraftShape(w, n)) for w, n in sorted(shapes)}
    return {"no draft": FixedPlanning(None), **fixed, "auto": auto, "no draft again": FixedPlanning(None)}


def cell(
    recommender: Recommender, plans: dict[str, Planning], histories: list[list[str]], batch: int, k: int, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds a request of every contestant for each of `rounds` batches, in an order that changes."""
    loops = {name: recommender.variant(planning, batch) for name, planning in plans.items()}
    times: dict[str, list[float]] = {name: [] for name in loops}
    rng = np.random.default_rng(0)
    for number in range(rounds + 2):
        group = list(islice(cycle(histories), number * batch, (number + 1) * batch))
        for i in rng.permutation(len(loops)):
            name = list(loops)[i]
            elapsed = timed(partial(loops[name].recommend, group, k)) / batch
            if number >= 2:  # the first allocate, and let auto plan
                times[name].append(elapsed)
    return times


def against(times: list[float], others: list[float]) -> tuple[float, float]:
    """Median ratio and median difference of times for the same batches."""
    pairs = list(zip(times, others, strict=True))
    return median(a / b for a, b in pairs), median(a - b for a, b in pairs)


def row_of(
    k: int, batch: int, prompt: int, times: dict[str, list[float]], plan: str
) -> tuple[list[object], dict[str, object]]:
    """One cell as a line of the table, and as JSON."""
    medians = {name: median(values) for name, values in times.items()}
    best = min((name for name in times if name not in ("auto", "no draft again")), key=lambda name: medians[name])
    ratio, gap = against(times["auto"], times[best])
    noise, _ = against(times["no draft again"], times["no draft"])
    within = ratio <= 1.03 or gap <= 0.1
    shown = [k, batch, prompt, f"{medians['no draft']:.2f}", f"{best}: {medians[best]:.2f}", f"{medians['auto']:.2f}"]
    shown += [f"{ratio:.3f}", f"{gap:+.2f}", f"{noise:.3f}", plan, "yes" if within else "NO"]
    facts = {"k": k, "batch": batch, "prompt": prompt, "milliseconds": medians, "ratio": ratio, "noise": noise}
    return shown, {**facts, "gap": gap, "within": within, "plan": plan}


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompts", type=int, nargs="+", default=[20, 80, 400], help="tokens")
    parser.add_argument(
        "--rounds", type=int, default=24, help="batches of every contestant in a cell (large ones: fewer)"
    )
    parser.add_argument("--widest", type=int, default=40, help="of the fixed drafts")


def main() -> None:
    options = arguments(__doc__, users=400, more=add_options, history_length=LONGEST)
    bundle = Bundle.open(options.bundle)
    name = options.engine or default_engine(bundle)
    _, histories, _ = real_users(options.data)
    if not tuning_file(bundle, name, "strict", bundle.manifest.scoring).is_file():
        others = [history[-20:] for history in histories[options.users :][:TUNING_USERS]]
        print(tune(bundle, others, top_k=options.top_k, engine=EngineChoice(name, threads=options.threads))[1].fits)
    recommender = Recommender.open(
        bundle,
        verification=Verification(),
        engine=EngineChoice(name, threads=options.threads),
        drafting=Drafting(speculation="auto"),
    )
    auto, length = recommender.planning, recommender.trie.length
    cells = [(k, batch, prompt) for prompt in options.prompts for batch in options.batches for k in options.top_k]
    rows, result = [], []
    for k, batch, prompt in tqdm(cells, desc="cells", disable=None):
        rounds = max(8, min(options.rounds, 320 * options.rounds // (batch * (prompt + 60))))
        asked = of_length(histories[: options.users], prompt, length, min(rounds + 2, 40) * batch)
        times = cell(recommender, contestants(k, auto, options.widest), asked, batch, k, rounds)
        policy = auto.policy(batch, len(recommender.encode(asked[0]).prompt), k)
        plan = " ".join("all" if p.enumerate else "+".join(map(str, p.widths)) or "-" for p in policy[: length - 1])
        shown, facts = row_of(k, batch, prompt, times, plan)
        rows.append(shown)
        result.append(facts)
        dump(options.output, result)
    print(f"{name}, ms a request, medians; at most 1.03 times the best other, or 0.1 ms more:\n")
    heads = ["K", "batch", "prompt", "no draft", "best other", "auto", "auto / best", "gap", "noise", "plan", "within"]
    print_table(heads, rows)


if __name__ == "__main__":
    main()
