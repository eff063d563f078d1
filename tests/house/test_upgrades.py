"""Artifacts of every schema there has been: what opens serves, what does not says what makes it again."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import good, lines, write
from specbeam.calib.ranges import load_ranges
from specbeam.catalog.errors import BundleError
from specbeam.engines.bundle.default import DEFAULT_SCHEMA, default_engine
from specbeam.engines.bundle.facts import ENGINE_FACTS, ENGINE_SCHEMA
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.bundle.measured import MEASURED_SCHEMA
from specbeam.engines.bundle.model import MANIFEST
from specbeam.engines.bundle.open import open_bundle
from specbeam.engines.bundle.sealed import SCHEMA_VERSION
from specbeam.engines.bundle.texts import TextBundle
from specbeam.export.trained import Trained
from specbeam.pools.files import POOL_FILE, POOL_SCHEMA
from specbeam.pools.items.pool import ItemPool
from specbeam.pools.texts.pool import TextPool
from specbeam.runtime import Drafting, EngineChoice, Recommender
from specbeam.runtime.planning.tuning_file import TUNING_SCHEMA
from specbeam.runtime.runs.parts import MANIFEST as PARTS_FILE
from specbeam.runtime.runs.parts import PARTS_SCHEMA, read_manifest
from tiny_bundle import ENGINE
from upgrade_cases import INT8, KEPT, same_minor

FIRST = {
    "bundle": 1,
    "text bundle": 2,
    "engine": 1,
    "tuning": 2,
    "default engine": 1,
    "pool": 1,
    "measured": 1,
    "partitions": 1,
}


NOW = {
    "bundle": SCHEMA_VERSION, "text bundle": SCHEMA_VERSION, "engine": ENGINE_SCHEMA, "tuning": TUNING_SCHEMA,
    "default engine": DEFAULT_SCHEMA, "pool": POOL_SCHEMA, "measured": MEASURED_SCHEMA,
    "partitions": PARTS_SCHEMA,
}  # fmt: skip


def kind_of(file: Path, content: dict[str, Any]) -> str:
    if file.name == MANIFEST:
        return "text bundle" if content.get("kind") == "text" else "bundle"
    names = {ENGINE_FACTS: "engine", "default.json": "default engine", POOL_FILE: "pool", PARTS_FILE: "partitions"}
    return names.get(file.name) or file.name.partition("-")[0]


def numbered() -> set[tuple[str, int]]:
    """Kind and schema of all that is kept."""
    contents = {file: json.loads(file.read_bytes()) for file in KEPT.rglob("*.json")}
    return {(kind_of(f, c), c["schema_version"]) for f, c in contents.items() if "schema_version" in c}


def test_there_is_an_artifact_of_every_schema() -> None:
    assert numbered() == {(kind, number) for kind in FIRST for number in range(FIRST[kind], NOW[kind] + 1)}


def test_the_table_says_what_the_code_says() -> None:
    table = (KEPT.parent.parent / "docs" / "upgrades.md").read_text()
    rows = re.findall(r"^\| ([a-z ]+) \| [^|]+ \| (\**)(\d+)\** \| [^|]+ \| (yes|no) \|", table, re.MULTILINE)
    assert {(kind, int(number)) for kind, _, number, _ in rows} == numbered()
    assert {kind: int(number) for kind, bold, number, _ in rows if bold} == NOW
    assert all(opens == ("yes" if bold else "no") for _, bold, _, opens in rows)


def test_artifacts_are_small_and_name_no_machine() -> None:
    files = [file for file in KEPT.rglob("*") if file.is_file()]
    assert max(file.stat().st_size for file in files) < 30_000
    assert sum(file.stat().st_size for file in files) < 500_000
    for file in files:
        if "__pycache__" not in file.parts:
            assert not re.search(rb"/(tmp|home|root|usr|work|Users)/", file.read_bytes()), file


@pytest.mark.parametrize(
    ("name", "engine", "speculation"),
    [
        ("bundle-2", ENGINE, "auto"), ("bundle-2-former-name", ENGINE, "auto"),
        ("bundle-2-columns", ENGINE, "auto"),
        ("bundle-2-tuning-2", ENGINE, "fixed"), ("bundle-2-int8", INT8, "fixed"),
    ],
)  # fmt: skip
def test_what_opens_serves(kept: Callable[[str], Path], name: str, engine: str, speculation: Any) -> None:
    bundle = kept(name)
    if not same_minor(bundle, engine):
        with pytest.raises(BundleError, match=rf"built by onnxruntime .*, installed is .* {bundle} .*--overwrite"):
            Recommender.open(bundle, engine=EngineChoice(engine, threads=1))
        return
    answer = Recommender.open(
        bundle, engine=EngineChoice(engine, threads=1), drafting=Drafting(speculation=speculation)
    ).recommend([["0", "1"]], 2)
    assert [item.item for item in answer[0].items] == ["1", "2"]


@pytest.mark.parametrize("name", ["bundle-2-no-default", "text-2", "text-2-former-name"])
def test_bundles_open(name: str) -> None:
    bundle = open_bundle(KEPT / name)
    assert bundle.manifest.specbeam_version == "0.1.0"
    assert default_engine(bundle) == ENGINE if isinstance(bundle, Bundle) else isinstance(bundle, TextBundle)


def test_lines_and_columns_are_the_same_catalog() -> None:
    (lines, old), (columns, new) = (Bundle.open(KEPT / name).items() for name in ("bundle-2", "bundle-2-columns"))
    assert lines == columns
    assert old.leaf_of.tolist() == new.leaf_of.tolist()  # which an older trie does not say


@pytest.mark.parametrize("suffix", ["", "-former-name"])
def test_pools_open(suffix: str) -> None:
    assert ItemPool.open(KEPT / f"item-pool-1{suffix}").ids == [str(i) for i in range(6)]
    assert TextPool.open(KEPT / f"text-pool-1{suffix}").facts.all.texts == 3


@pytest.mark.parametrize("suffix", ["", "-former-name"])
def test_records_of_training_are_read(kept: Callable[[str], Path], suffix: str) -> None:
    folder = kept(f"training{suffix}")
    for _ in ("alignment.json", "training.json"):
        trained = Trained.of(folder)
        assert trained is not None
        assert (trained.prompt.history_length, trained.compiled is None) == (4, bool(suffix))
        trained.file.unlink()


def test_an_engine_that_was_built_without_a_gpu_and_what_was_measured_of_it() -> None:
    facts = Bundle.open(KEPT / "bundle-2-rtx").engine_facts("tensorrt-rtx-cuda-fp16")
    assert facts.measured
    assert {role.tensorrt.compiled_for for role in facts.roles.values() if role.tensorrt} == {("8.6", "8.9")}


def test_partitions_are_read() -> None:
    manifest = read_manifest(KEPT / "parts-1")
    for part in manifest.parts:
        for file in filter(None, (part.results, part.rejects)):
            data = (KEPT / "parts-1" / file.file).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256)
    assert (manifest.run.verb, manifest.counts["served"], manifest.counts["rejected"]) == ("infer", 3, 1)


def test_ranges_are_read() -> None:
    bundle = Bundle.open(KEPT / "bundle-2-int8")
    for role in ("target", "draft"):
        source = bundle.engine_facts(INT8).roles[role].source_sha256
        assert load_ranges(bundle.path / "engines" / INT8 / f"{role}-ranges.json", source).tensors


def test_a_text_bundle_of_the_first_writes(kept: Callable[[str], Path], tmp_path: Path) -> None:
    bundle, pool = kept("text-2-former-name"), kept("text-pool-1-former-name")
    good("build-engine", bundle, "--threads", 1)
    prompts, output = write(tmp_path / "prompts.jsonl", {"id": "u1", "prompt": " desk"}), tmp_path / "texts.jsonl"
    reach = ["--depth", 4, "--query", 2, "--max-new-tokens", 4]
    good("generate", bundle, prompts, "--pool", pool, *reach, "--threads", 1, "--output", output)
    assert len(lines(output)) == 1
