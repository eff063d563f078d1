"""Text by a small decoder of random weights, plain and drafted from what was written before."""

from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.hardware.kit.engines import name_of
from benchmarks.hardware.kit.libraries import passing, usable
from benchmarks.hardware.kit.parts import Job, PassedOver, Steps, Wrong
from benchmarks.hardware.kit.record import Row
from specbeam.catalog.temporaries import temporary_directory
from specbeam.engines.build import build_engine
from specbeam.engines.bundle.texts import TextBundle
from specbeam.engines.installed import backend_version
from specbeam.engines.registry import find_backend
from specbeam.runtime import EngineChoice
from specbeam.text import TextDrafting, TextGenerator

SHAPES: dict[str, dict[str, Any]] = {
    "full": {
        "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 64, "max_position_embeddings": 512, "initializer_range": 0.05,
    },
    "small": {},
}  # fmt: skip
WORDS = ("a desk lamp", "walnut", "a kettle", "an oak wall clock", "a teapot", "a folding chair", "wrought iron")
PRECISION = {"cuda": "fp16", "cpu": "fp32"}


def steps(job: Job) -> Steps:
    passing(lambda: backend_version("torch"))  # which makes the model
    each = {backend: partial(written, job, backend) for backend in ("torch", "onnxruntime")}
    return {"bundle": partial(bundle, job), **each}


def bundle(job: Job) -> list[Row]:
    from specbeam.export.text import export_text
    from tiny_models import make_text_tokenizer, tiny_checkpoint

    with temporary_directory(job.work / "texts") as scratch:
        model = tiny_checkpoint(scratch, tokenizer=make_text_tokenizer(), tied=True, **SHAPES[job.setup.size])
        manifest = export_text(model, job.work / "texts", prompt="About {prompt}:", overwrite=True)
    return [{"target parameters": manifest.target.parameters}]


def written(job: Job, backend: str) -> list[Row]:
    """The same prompts in turns; raises `Wrong` where a draft changes a text of float32."""
    usable(job, backend)
    if not (job.work / "texts" / "manifest.json").is_file():
        raise PassedOver("there is no bundle of texts: see its step")
    found, precision = TextBundle.open(job.work / "texts"), PRECISION[job.device]
    name = name_of(job, backend, precision)
    if backend != "torch" and name not in found.engine_names():
        chosen = find_backend(backend, job.device)
        passing(chosen.ready)
        build_engine(found, backend=chosen, precision=precision)  # type: ignore[arg-type]
    rng = np.random.default_rng(3)
    prompts = [" and ".join(rng.choice(WORDS, 2)) for _ in range(job.sizes.prompts)]
    rows, greedy = list[Row](), None
    for drafts, drafting in (("nothing", None), ("its own prompt and texts before", TextDrafting())):
        generator = TextGenerator.open(
            found, engine=EngineChoice(name), drafting=drafting, speculation=None if drafting is None else "fixed"
        )  # fmt: skip
        generator.generate(prompts[:2], max_new_tokens=4)  # the first calls allocate
        tokens, calls, start = generator.stats.tokens, generator.stats.target_calls, perf_counter()
        texts = generator.generate(prompts, max_new_tokens=job.sizes.tokens)
        seconds = perf_counter() - start
        tokens, calls = generator.stats.tokens - tokens, generator.stats.target_calls - calls
        greedy = greedy or texts
        same = sum(a.tokens == b.tokens for a, b in zip(texts, greedy, strict=True))
        rows.append({
            "engine": name, "drafts from": drafts, "texts": len(texts), "tokens a call": tokens / max(calls, 1),
            "tokens a second": tokens / seconds, "as greedy": same,
        })  # fmt: skip
    if precision == "fp32" and same < len(prompts):
        raise Wrong(f"{len(prompts) - same} texts are not those of greedy decoding", rows)
    return rows
