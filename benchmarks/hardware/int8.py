"""INT8 on the CPU beside float32: engine calls by shape, and whole recommendations, on the same users in turns.

Without --parameters the trained pair's bundle is measured; with it a Llama of about so many millions of random
weights and 32,000 rows of vocabulary is exported for the same catalog (random weights cost what trained ones cost, but
rank at random: it is built with --no-gate). Each round serves the same users by every engine, one after another.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.shared import arguments, dump, print_table
from specbeam.calib.build import build_int8
from specbeam.calib.data import read_examples
from specbeam.calib.options import Int8Options
from specbeam.engines.build import Order, build_engine
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.latency import time_call
from specbeam.engines.machine.processors import available_threads
from specbeam.engines.onnxruntime.backend import OrtBackend
from specbeam.engines.registry import load_engine
from specbeam.evaluate.speed import rounds_of, served_by, take_turns
from specbeam.export import export_bundle
from specbeam.runtime import Drafting, DraftShape, EngineChoice, Recommender
from specbeam.runtime.metrics import median_estimate

FP32, INT8 = "onnxruntime-cpu-fp32", "onnxruntime-cpu-int8"
SHAPES = {  # cached, new: calls of plain beam search and of verification for K = 20
    "prompt (30)": (0, 30),
    "beam step (20 on 30)": (30, 20),
    "prefill+verify (80 + 120)": (0, 200),
    "verify (40 on 200)": (200, 40),
    "one needed call (90)": (0, 90),
}


def more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parameters", type=int, help="millions, of random weights in place of the trained target")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--method", default="auto")
    parser.add_argument("--work", type=Path, help="where what is made stays (default: nowhere)")


def random_target(pair: Path, folder: Path, millions: int) -> Path:
    """A Llama with random weights: as many layers of 768 as make up the number, the trained tokenizer."""
    layers = max(round((millions - 24.6) / 7.08), 1)
    config = LlamaConfig(
        vocab_size=32000, hidden_size=768, intermediate_size=2048, num_hidden_layers=layers, num_attention_heads=12,
        num_key_value_heads=12, max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    shutil.copytree(pair / "target", folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def built(options: argparse.Namespace, work: Path) -> Bundle:
    """The bundle to measure, with both engines."""
    path = options.bundle
    if options.parameters:
        path = work / f"random-{options.parameters}m"
        if not path.exists():
            target = random_target(options.pair, work / f"target-{options.parameters}m", options.parameters)
            data = options.data
            export_bundle(target, options.pair / "draft", data / "index.json", data / "items.json", path)
    bundle = Bundle.open(path)
    if FP32 not in bundle.engine_names():
        build_engine(bundle, threads=options.threads)
    if INT8 not in bundle.engine_names():
        order = Order.check(bundle, OrtBackend("cpu"), "int8", None, options.threads)
        chosen = Int8Options(method=options.method, gate=not options.parameters)
        build_int8(order, read_examples([options.data], bundle.catalog())[0], chosen)
    return bundle


def calls(bundle: Bundle, threads: int) -> dict[str, dict[str, float]]:
    """Milliseconds of single calls of the target, by shape and engine; the engines take turns."""
    engines = {name: load_engine(bundle, "target", name, threads=threads) for name in (FP32, INT8)}
    facts = bundle.facts("target")
    times: dict[str, dict[str, list[float]]] = {shape: {name: [] for name in engines} for shape in SHAPES}
    for _ in range(5):
        for shape, (past, new) in SHAPES.items():
            for name, engine in engines.items():
                times[shape][name].append(time_call(engine, facts, 1, past, new))
    return {shape: {name: float(np.median(t)) for name, t in of.items()} for shape, of in times.items()}


def main() -> None:
    options = arguments(__doc__, None, more)
    threads = options.threads or available_threads()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        work.mkdir(exist_ok=True)
        bundle = built(options, work)
        facts = bundle.engine_facts(INT8).roles
        print(f"target of {bundle.facts('target').parameters:,} parameters, {threads} threads")
        for role, of in facts.items():
            assert of.quantization is not None
            print(f"{role}: {of.quantization.method}")
            for trial in of.quantization.trials:
                print(f"  {trial.method}: {trial.milliseconds}, divergence {trial.divergence:.2g}")
        found = calls(bundle, threads)
        rows = [
            [shape, *(f"{ms:.2f}" for ms in of.values()), f"{of[FP32] / of[INT8]:.2f}"] for shape, of in found.items()
        ]
        print_table(["target call, batch 1", "fp32 ms", "int8 ms", "fp32 / int8"], rows)
        examples, _ = read_examples([options.data], bundle.catalog())
        rng = np.random.default_rng(0)
        users = [examples[i] for i in rng.permutation(len(examples))[:256]]
        rows = []
        for batch in (1, 8):
            for drafting, shape in (("none", None), ("40 x 3", DraftShape())):
                drafting = Drafting("none") if shape is None else Drafting(shape=shape)
                searches = {
                    name: served_by(
                        Recommender.open(
                            bundle, engine=EngineChoice(name, threads=threads), batching=batch, drafting=drafting
                        ),
                        20,
                    )
                    for name in (FP32, INT8)
                }
                seconds, _ = take_turns(searches, rounds_of(users, batch, options.rounds))
                pair = 1000 * np.stack([seconds[FP32], seconds[INT8]], axis=1) / batch
                medians = np.median(pair, axis=0)
                ratio = median_estimate(seconds[FP32] / seconds[INT8])
                found[f"K=20, batch {batch}, {drafting}"] = {FP32: float(medians[0]), INT8: float(medians[1])}
                interval = f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
                rows.append([f"batch {batch}, drafting {drafting}", *(f"{ms:.2f}" for ms in medians), interval])
        print_table(["K = 20, milliseconds a user", "fp32", "int8", "fp32 / int8 (95 %)"], rows)
        dump(options.output, found)


if __name__ == "__main__":
    main()
