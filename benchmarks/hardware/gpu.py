"""What one GPU does: calls against tokens, plain beam search against speculation of a given luck, and parity.

Models are Llama-shaped with random weights, made on the device; no checkpoint is needed. The floor beside each
time is that of reading the weights once a call. On a CPU, to see that it works:

    python -m benchmarks.hardware.gpu --device cpu --precision fp32 --targets tiny --draft tiny-draft --repeats 2 \\
      --prompt 30 --ort
"""

import gc
from argparse import ArgumentParser, Namespace
from statistics import median

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from benchmarks.hardware.gpu_rig import (
    LENGTH,
    SHAPES,
    Found,
    Searcher,
    Shop,
    facts_of,
    make_model,
    measured_bandwidth,
    ort_engine,
    torch_engine,
    weight_bytes,
    words_of,
)
from benchmarks.shared import dump, print_table
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.base import Engine
from specbeam.engines.latency import time_call
from specbeam.runtime.types import DraftShape

CALLS = ((0, 1), (0, 40), (0, 160), (0, 400), (0, 1000), (400, 1), (400, 40), (400, 160))  # cached, new tokens
SLACK = {"fp32": 1e-3, "fp16": 0.2, "bf16": 1.6}  # of a summed log-probability, against float32 on the CPU
CPU_PARAMETERS = 3e9  # larger models would keep the CPU for too long


def freed() -> None:
    """Give back what the model before held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def engine_of(model: PreTrainedModel, trie: ItemTrie, options: Namespace, backend: str) -> Engine:
    """One model by one backend."""
    if backend == "onnxruntime":
        return ort_engine(model, trie, options.precision, options.device, options.threads)
    return torch_engine(model, trie, options.precision)


def calls(options: Namespace, backend: str, bandwidth: float) -> list[dict[str, object]]:
    """Milliseconds a call of every model, against batch, cached and new tokens."""
    rows, results = [], []
    for name in dict.fromkeys([*options.targets, options.draft]):
        freed()
        trie = Shop(options.codes, options.items, options.prompt, words_of(name)).trie()
        model = make_model(name, LENGTH * options.codes, options.device, options.precision)
        engine, facts, floor = (engine_of(model, trie, options, backend), facts_of(model),
                                1000 * weight_bytes(model) / bandwidth)  # fmt: skip
        grid = [(batch, past, new) for batch in options.batches for past, new in CALLS]
        for batch, past, new in tqdm(grid, desc=f"calls of {name}, {backend}", disable=None, leave=False):
            took = time_call(engine, facts, batch, past, new, options.repeats)
            rows.append([name, batch, past, new, took, floor, took / floor])
            results.append({"model": name, "batch": batch, "past": past, "new": new, "ms": took, "floor_ms": floor})
        del model, engine
    print(f"\nA call ({backend}, {options.precision}), ms:\n")
    print_table(["model", "batch", "cached", "new", "ms", "floor", "times the floor"], rows)
    return results


def search(options: Namespace, backend: str, bandwidth: float) -> list[dict[str, object]]:
    """Plain beam search, and speculation that is right for 0 to 3 levels a round, with what the draft costs."""
    rows, results = [], []
    for name in options.targets:
        freed()
        shop = Shop(options.codes, options.items, options.prompt, min(words_of(name), words_of(options.draft)))
        trie = shop.trie()
        models = [
            make_model(n, LENGTH * options.codes, options.device, options.precision) for n in (name, options.draft)
        ]
        target, draft = (engine_of(model, trie, options, backend) for model in models)
        floors = [1000 * weight_bytes(model) / bandwidth for model in models]
        searcher = Searcher(trie, target, draft, DraftShape(options.width, LENGTH - 1))
        for batch in options.batches:
            found = luck(searcher, shop, batch, options, f"{name}, batch {batch}, {backend}")
            plain = median(one.seconds for one in found["plain"])
            for variant, runs in found.items():
                row = summary(runs, floors)
                rows.append([name, batch, variant, *row.values(), plain / median(one.seconds for one in runs)])
                results.append({"model": name, "batch": batch, "variant": variant, **row})
        del models, target, draft, searcher
    print(f"\nSearch ({backend}, {options.precision}), K={options.top_k}, {options.width} nodes a level, ms a batch:\n")
    heads = ["ms", "target calls", "draft calls", "in the target", "in the draft", "host a round", "floor"]
    print_table(["model", "batch", "", *heads, "times as fast"], rows)
    return results


def luck(searcher: Searcher, shop: Shop, batch: int, options: Namespace, name: str) -> dict[str, list[Found]]:
    """Runs of every variant on the same prompts, taking turns; every list is the plain one's."""
    prompts = shop.prompts(batch)
    truth = [
        {depth: np.concatenate([best, np.setdiff1d(wider[depth], best)]) for depth, best in beams.items()}
        for beams, wider in zip(
            searcher(prompts, options.top_k).truth(), searcher(prompts, max(options.width, options.top_k)).truth(),
            strict=True,
        )
    ]  # fmt: skip
    variants: dict[str, int | None] = {"plain": None, **{f"accept {levels}": levels for levels in range(LENGTH)}}
    found: dict[str, list[Found]] = {variant: [] for variant in variants}
    for turn in tqdm(range(options.repeats + 1), desc=name, disable=None, leave=False):
        for variant, levels in variants.items():
            run = (
                searcher(prompts, options.top_k) if levels is None else searcher(prompts, options.top_k, truth, levels)
            )
            if turn:  # the first allocate
                found[variant].append(run)
    first = found["plain"][0]
    for variant, runs in found.items():
        worst = float(np.abs(runs[0].scores - first.scores).max())
        if worst > SLACK[options.precision]:
            raise SystemExit(f"{name}, {variant}: scores differ from plain beam search by {worst:.3g}.")
    return found


def summary(runs: list[Found], floors: list[float]) -> dict[str, float]:
    """Medians of some runs, in milliseconds; floors: of a call of the target and of the draft."""
    first = runs[0]
    return {
        "ms": 1000 * median(run.seconds for run in runs),
        "target_calls": first.calls,
        "draft_calls": first.draft_calls,
        "target_ms": 1000 * median(run.target_seconds for run in runs),
        "draft_ms": 1000 * median(run.draft_seconds for run in runs),
        "host_ms_a_round": 1000 * median(run.host_seconds for run in runs) / len(first.rounds),
        "floor_ms": first.calls * floors[0] + first.draft_calls * floors[1],
    }


def parity(options: Namespace, backend: str, bandwidth: float) -> list[dict[str, object]]:
    """Lists of the device beside those of the same weights in float32 on the CPU."""
    rows, results = [], []
    for name in options.targets:
        freed()
        shop = Shop(options.codes, options.items, options.prompt, words_of(name))
        trie, prompts = shop.trie(), shop.prompts(options.lists)
        model = make_model(name, LENGTH * options.codes, options.device, options.precision)
        if model.num_parameters() > CPU_PARAMETERS:
            print(f"parity: {name} is left out, it is too large for the CPU")
            del model
            continue
        device = searched(engine_of(model, trie, options, backend), trie, prompts, options, f"parity of {name}")
        reference = model.to("cpu", torch.float32)  # type: ignore[call-arg, arg-type]
        cpu = searched(torch_engine(reference, trie, "fp32"), trie, prompts, options, f"{name} on the CPU")
        same = float(np.mean([np.array_equal(a.leaves, b.leaves) for a, b in zip(device, cpu, strict=True)]))
        faults = sum(fault(a, b, trie, SLACK[options.precision]) for a, b in zip(device, cpu, strict=True))
        worst = max(difference(a, b) for a, b in zip(device, cpu, strict=True))
        rows.append([name, len(prompts), f"{same:.0%}", f"{worst:.2g}", faults])
        results.append({"model": name, "lists": len(prompts), "same": same, "worst": worst, "faults": faults})
        del model, reference
    print(f"\nParity with float32 on the CPU ({backend}, {options.precision}), K={options.top_k}:\n")
    print_table(["model", "lists", "the same", "largest difference of a score", "faults beyond near-ties"], rows)
    return results


def searched(engine: Engine, trie: ItemTrie, prompts: list[np.ndarray], options: Namespace, name: str) -> list[Found]:
    """Plain beam search, one prompt after the other."""
    searcher = Searcher(trie, engine, None, DraftShape())
    return [searcher([prompt], options.top_k) for prompt in tqdm(prompts, desc=name, disable=None, leave=False)]


def difference(got: Found, expected: Found) -> float:
    """Largest difference of a score among the leaves that both lists have."""
    one, other = got.levels()[LENGTH], expected.levels()[LENGTH]
    return max((abs(score - other[leaf]) for leaf, score in one.items() if leaf in other), default=np.inf)


def fault(got: Found, expected: Found, trie: ItemTrie, slack: float) -> bool:
    """Whether two searches differ by more than near-ties: in a score, or by a beam that was clearly not the last."""
    ours, theirs = got.levels(), expected.levels()
    for depth in range(1, LENGTH + 1):
        lost = [node for node in theirs[depth] if node not in ours[depth]]
        if depth > 1:  # what was lost with its parent was judged there
            lost = [node for node in lost if int(trie.parent[node]) in ours[depth - 1]]
        last = min(theirs[depth].values())
        if any(theirs[depth][node] > last + slack for node in lost):
            return True
    return difference(got, expected) > slack


PARTS = {"calls": calls, "search": search, "parity": parity}


def arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="of these, with commas between (default: %(default)s)")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--precision", default="fp16", choices=list(SLACK))
    parser.add_argument("--targets", nargs="+", default=["1b", "7b"], choices=list(SHAPES))
    parser.add_argument("--draft", default="68m", choices=list(SHAPES))
    parser.add_argument("--ort", action="store_true", help="by ONNX Runtime as well (exports every model)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--top-k", type=int, default=20)
    parser.add_argument("--width", type=int, default=40, help="drafted nodes a level")
    parser.add_argument("--prompt", type=int, default=100, help="tokens of a prompt")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--codes", type=int, default=64, help="tokens of each of the identifiers' levels")
    parser.add_argument("--lists", type=int, default=20, help="compared for parity")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime on the host")
    parser.add_argument("--bandwidth", type=float, help="of the device's memory, GB/s (default: measured by a copy)")
    parser.add_argument("--output", help="write the result as JSON")
    options = parser.parse_args()
    unknown = set(options.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return options


def main() -> None:
    options = arguments()
    bandwidth = 1e9 * options.bandwidth if options.bandwidth else measured_bandwidth(options.device)
    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{device}, {bandwidth / 1e9:.0f} GB/s, torch {torch.__version__}")
    result: dict[str, object] = {"device": device, "bandwidth_gb_s": bandwidth / 1e9, "precision": options.precision}
    for backend in ["torch", "onnxruntime"] if options.ort else ["torch"]:
        for part in options.parts.split(","):
            result[f"{part}, {backend}"] = PARTS[part](options, backend, bandwidth)
            dump(options.output, result)


if __name__ == "__main__":
    main()
