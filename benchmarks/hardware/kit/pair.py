"""The pair that all parts run: exported, copied or made; and its lists by the exported graph on the CPU."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.hardware.kit.parts import Job, Steps
from benchmarks.hardware.kit.record import Row
from benchmarks.hardware.kit.sources import MADE, PUBLIC, public_data
from benchmarks.hardware.kit.users import (
    MODES,
    all_users,
    keep_reference,
    keep_users,
    kept_users,
    pair,
    ranked,
)  # fmt: skip
from specbeam.catalog.errors import BundleError
from specbeam.catalog.files import whole_directory
from specbeam.catalog.temporaries import temporary_directory
from specbeam.engines.build import exported_engine
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.bundle.model import MANIFEST
from specbeam.engines.installed import backend_version
from specbeam.engines.machine.processors import available_threads
from specbeam.runtime import Recommender
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.policy import FixedPlanning

BUDGET = 240.0  # seconds for the lists of the reference, all together: large pairs have fewer users


def steps(job: Job) -> Steps:
    each = {f"lists of {mode}, K = {k}": partial(lists, job, mode, k) for mode in MODES for k in job.sizes.top_k}
    return {"graphs": partial(graphs, job), "users": partial(users, job), **each}


def graphs(job: Job) -> list[Row]:
    """The bundle, as a folder of the kit's own: engines are built in it."""
    source, output = job.setup.pair, job.work / "pair"
    if source in (MADE, PUBLIC):
        backend_version("torch")  # which exports it; raises with the remedy
    job.work.mkdir(exist_ok=True)
    if source == MADE:
        with temporary_directory(output) as scratch:
            (made_small if job.setup.size == "small" else made_large)(scratch, output)
    elif source == PUBLIC:
        exported(output)
    else:
        with whole_directory(output, kind=MANIFEST, replace=True) as folder:
            shutil.copytree(
                source, folder, copy_function=linked, dirs_exist_ok=True, ignore=shutil.ignore_patterns("engines")
            )
    manifest = Bundle.open(output).manifest
    assert manifest.draft is not None
    return [{
        "pair": source, "architecture": manifest.target.architecture, "target parameters": manifest.target.parameters,
        "draft parameters": manifest.draft.parameters, "precision": manifest.precision,
        "items": len(Bundle.open(output).catalog().item_ids), "identifier length": manifest.identifier_length,
    }]  # fmt: skip


def linked(source: str, to: str) -> str:
    """A second name where that is possible, else a copy: nothing that a bundle holds is ever changed in place."""
    try:
        os.link(source, to)
    except OSError:
        shutil.copy2(source, to)
    return to


def exported(output: Path) -> None:
    from specbeam.export import export_bundle

    found = public_data()
    if found is None:
        raise BundleError("The public pair is not here any more: SPECBEAM_DATA named the folder that holds it.")
    data, models = found
    export_bundle(
        models / "target", models / "draft", data / "index.json", data / "items.json", output, history_length=20,
        overwrite=True,
    )  # fmt: skip


def made_small(scratch: Path, output: Path) -> None:
    """What a CPU runs in no time."""
    from specbeam.export import export_bundle
    from tiny_models import tiny_catalog, tiny_checkpoint

    target = tiny_checkpoint(scratch / "target", max_position_embeddings=64)
    draft = tiny_checkpoint(scratch / "draft", max_position_embeddings=64, num_hidden_layers=1, seed=1)
    index = tiny_catalog(scratch / "index.json")
    export_bundle(target, draft, index, None, output, history_length=12, overwrite=True)


def made_large(scratch: Path, output: Path) -> None:
    """Some millions of random weights; the draft is the target's first layer, which agrees with it to some degree."""
    import json

    from benchmarks.speed.made_pairs import checkpoints, identifiers
    from specbeam.export import export_bundle

    named = identifiers(4, np.random.default_rng(4))
    checkpoints(scratch, sorted({token for identifier in named for token in identifier}), {})
    (scratch / "index.json").write_text(json.dumps(dict(zip(map(str, range(len(named))), named, strict=True))))
    export_bundle(
        scratch / "target", scratch / "draft", scratch / "index.json", None, output, history_length=20, overwrite=True
    )


@contextmanager
def reference(job: Job, bundle: Bundle, mode: str) -> Iterator[Recommender]:
    """The exported graph as it is, on the CPU, without a draft: nothing is built, and nothing timed."""
    if bundle.manifest.precision != "fp32":
        raise BundleError(
            f"{bundle.path} was exported in {bundle.manifest.precision}; the reference is float32. Export it again "
            "with --precision fp32: half-precision engines are built from that."
        )
    trie = bundle.trie()
    with temporary_directory(job.work / "reference") as scratch:
        target = exported_engine(bundle, "target", scratch, available_threads())
        loaded = Loaded(bundle.catalog(), trie, bundle.prompts(trie), target)
        yield Recommender(loaded, planning=FixedPlanning(None), verification=MODES[mode], batching=8)


def users(job: Job) -> list[Row]:
    """Who is compared: fewer where the target takes its time on this CPU."""
    bundle = pair(job)
    found = all_users(job, bundle)
    with reference(job, bundle, "strict, full") as recommender:
        seconds = timed(lambda: recommender.recommend(found.histories[:1], max(job.sizes.top_k)))
    most = int(BUDGET / max(seconds, 1e-6) / len(MODES) / len(job.sizes.top_k))
    kept = found.first(max(most, min(4, len(found.names))))
    keep_users(job, kept)
    return [{"users": len(kept.names), "of": len(found.names), "seconds a list on the CPU": round(seconds, 4)}]


def timed(work: Callable[[], object]) -> float:
    """Seconds of the second time."""
    work()
    start = perf_counter()
    work()
    return perf_counter() - start


def lists(job: Job, mode: str, k: int) -> list[Row]:
    users = kept_users(job)
    with reference(job, pair(job), mode) as recommender:
        results = recommender.recommend(users.histories, k, users=users.names)
    keep_reference(job, mode, k, ranked(results))
    return [{"mode": mode, "K": k, "lists": len(results)}]
