"""Artifacts of every schema there has been: what opens serves, what does not says what makes it again."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from commands import bad, good, lines, user, write
from places import ROOT
from specbeam.calib.ranges import load_ranges
from specbeam.catalog.errors import BundleError, PoolError, SpecBeamError
from specbeam.engines.bundle.default import DEFAULT_SCHEMA, default_engine
from specbeam.engines.bundle.facts import ENGINE_FACTS, ENGINE_SCHEMA
from specbeam.engines.bundle.items import Bundle
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
from tiny_bundle import ENGINE

KEPT = ROOT / "tests" / "artifacts"
INT8 = "onnxruntime-cpu-int8"
TUNING = "tuning-strict-full.json"
FIRST = {"bundle": 1, "text bundle": 2, "engine": 1, "tuning": 2, "default engine": 1, "pool": 1}
NOW = {
    "bundle": SCHEMA_VERSION, "text bundle": SCHEMA_VERSION, "engine": ENGINE_SCHEMA, "tuning": TUNING_SCHEMA,
    "default engine": DEFAULT_SCHEMA, "pool": POOL_SCHEMA,
}  # fmt: skip


@pytest.fixture
def kept(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of an artifact, by its name."""
    return lambda name: shutil.copytree(KEPT / name, tmp_path / name)


@pytest.fixture
def histories(tmp_path: Path) -> Path:
    return write(tmp_path / "histories.jsonl", *(user(f"u{i}", str(i % 6), str((i + 1) % 6)) for i in range(6)))


def kind_of(file: Path, content: dict[str, Any]) -> str:
    if file.name == MANIFEST:
        return "text bundle" if content.get("kind") == "text" else "bundle"
    names = {ENGINE_FACTS: "engine", "default.json": "default engine", POOL_FILE: "pool"}
    return names.get(file.name) or file.name.partition("-")[0]


def numbered() -> set[tuple[str, int]]:
    """Kind and schema of all that is kept."""
    contents = {file: json.loads(file.read_bytes()) for file in KEPT.rglob("*.json")}
    return {(kind_of(f, c), c["schema_version"]) for f, c in contents.items() if "schema_version" in c}


def run_as_printed(message: str, **capitals: object) -> None:
    """Run the command at the end of a message, its words in capitals replaced."""
    words = shlex.split(message.partition("with: specbeam ")[2].partition(" (or ")[0])
    good(*(capitals.get(word, word) for word in words))


def same_minor(bundle: Path, engine: str) -> bool:
    """Whether ONNX Runtime here is one that an engine's own opens with."""
    built = Bundle.open(bundle).engine_facts(engine).versions["onnxruntime"]
    return built.split(".")[:2] == onnxruntime.__version__.split(".")[:2]


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


@pytest.mark.parametrize("name", ["bundle-1", "bundle-1-unsealed"])
def test_a_bundle_of_schema_1_is_exported_again_by_the_command_that_is_said(
    kept: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    from tiny_models import tiny_catalog, tiny_checkpoint

    bundle = kept(name)
    before = json.loads((bundle / MANIFEST).read_bytes())
    with pytest.raises(BundleError, match=r"manifest\.json has schema version 1, this SpecBeam reads 2\.") as refused:
        Recommender.open(bundle)
    command = "--target TARGET --draft DRAFT --catalog CATALOG --history-length 4 --no-checkpoints --output"
    assert str(refused.value).endswith(f"with: specbeam export {command} {bundle} --overwrite")
    if name == "bundle-1":
        model = tiny_checkpoint(tmp_path / "model", levels=2, codes=2)
        catalog = tiny_catalog(tmp_path / "index.json", levels=2, codes=2)
        run_as_printed(str(refused.value), TARGET=model, DRAFT=model, CATALOG=catalog)
        after = json.loads((bundle / MANIFEST).read_bytes())
        assert [after[key] for key in ("prompt", "precision", "scoring")] == [
            before[key] for key in ("prompt", "precision", "scoring")
        ]


def test_an_engine_of_schema_2_is_built_again_by_the_command_that_is_said(kept: Callable[[str], Path]) -> None:
    bundle = kept("bundle-2-engine-2")
    with pytest.raises(BundleError, match=r"engine\.json has schema version 2, this SpecBeam reads 3\.") as refused:
        Recommender.open(bundle)
    command = f"specbeam build-engine {bundle} --backend onnxruntime --device cpu --overwrite"
    assert str(refused.value).endswith(f"with: {command}")
    assert command in " ".join(good("inspect", bundle).output.split())
    run_as_printed(str(refused.value))
    assert [
        item.item
        for item in Recommender.open(bundle, engine=EngineChoice(threads=1)).recommend([["0", "1"]], 2)[0].items
    ] == ["1", "2"]


def test_a_tuning_of_schema_2_is_tuned_again_by_the_command_that_is_said(
    kept: Callable[[str], Path], histories: Path
) -> None:
    bundle = kept("bundle-2-tuning-2")
    if not same_minor(bundle, ENGINE):
        good("build-engine", bundle, "--overwrite")
        shutil.copy(KEPT / bundle.name / "engines" / ENGINE / TUNING, bundle / "engines" / ENGINE)
    told = bad("infer", bundle, histories, "--engine", ENGINE, "--output", bundle.parent / "out.jsonl")
    assert f"{TUNING} has schema version 2, this SpecBeam reads 3." in told
    assert f"with: specbeam tune {bundle} HISTORIES --engine {ENGINE} --scoring full (or do without it" in told
    run_as_printed(told, HISTORIES=histories)
    good("infer", bundle, histories, "--engine", ENGINE, "--top-k", 2, "--output", bundle.parent / "out.jsonl")


def test_an_engine_of_our_schema_that_says_less_is_no_damaged_one() -> None:
    bundle = Bundle.open(KEPT / "bundle-2-tuning-2")
    told = r"is whole, but not as this SpecBeam \(.*\) writes schema 3: .*`kept`.* Write it again with: specbeam build-"
    with pytest.raises(BundleError, match=told):
        bundle.engine_facts(INT8)


def test_nesting_as_deep_as_can_be_read_is_refused_as_damage(kept: Callable[[str], Path]) -> None:
    manifest = kept("text-2") / MANIFEST
    for depth in range(900, 1010):
        manifest.write_text('{"schema_version": 2, "deep": ' + '{"a":' * depth + "1" + "}" * (depth + 1))
        with pytest.raises(BundleError, match=r"manifest\.json is damaged: "):
            Bundle.open(manifest.parent)


def opened(path: Path) -> object:
    """Open whatever an artifact is."""
    if (path / POOL_FILE).is_file():
        return ItemPool.open(path) if path.name.startswith("item") else TextPool.open(path)
    if path.name.startswith("text"):
        return TextBundle.open(path)
    return Recommender.open(path, engine=EngineChoice(threads=1))


@pytest.mark.parametrize(
    ("name", "file", "command"),
    [
        ("bundle-2", MANIFEST, "export --target TARGET --draft DRAFT --catalog CATALOG --history-length 4 --no-check"),
        ("text-2", MANIFEST, "export --text --target TARGET --no-checkpoints --output {} --overwrite"),
        ("bundle-2", f"engines/{ENGINE}/{ENGINE_FACTS}", "build-engine {} --backend onnxruntime --device cpu --over"),
        ("bundle-2", f"engines/{ENGINE}/{TUNING}", f"tune {{}} HISTORIES --engine {ENGINE} --scoring full"),
        ("item-pool-1", POOL_FILE, "build-pool --items HISTORIES --output {} --overwrite"),
        ("text-pool-1", POOL_FILE, "build-pool TEXTS.jsonl --tokenizer BUNDLE --output {} --overwrite"),
    ],
)
def test_what_a_later_version_wrote_is_told_apart(
    kept: Callable[[str], Path], name: str, file: str, command: str
) -> None:
    path = kept(name)
    content = json.loads((path / file).read_bytes())
    number = content["schema_version"]
    (path / file).write_text(json.dumps(content | {"schema_version": number + 1, "specbeam_version": "7.5", "new": 1}))
    with pytest.raises((BundleError, PoolError)) as refused:
        opened(path)
    told = str(refused.value)
    assert told.startswith(f"{path / file} has schema version {number + 1}, of a later SpecBeam (7.5); this one (")
    assert f") reads {number}. Install the later one, or write it again for this one with: specbeam " in told
    assert command.format(path) in told


def test_the_default_engine_of_a_later_version_is_asked_for_only_where_there_are_several(
    kept: Callable[[str], Path],
) -> None:
    bundle = kept("bundle-2")
    (bundle / "engines" / "default.json").write_text('{"schema_version": 2}')
    assert default_engine(Bundle.open(bundle)) == ENGINE
    shutil.copytree(bundle / "engines" / ENGINE, bundle / "engines" / INT8)
    with pytest.raises(BundleError, match=r"schema version 2, of a later SpecBeam; .* reads 1\..* --default$"):
        default_engine(Bundle.open(bundle))


def test_a_pool_of_a_later_version_is_built_again_by_the_command_that_is_said(
    kept: Callable[[str], Path], histories: Path
) -> None:
    pool = kept("item-pool-1")
    (pool / POOL_FILE).write_text('{"schema_version": 2, "kind": "items"}')
    with pytest.raises(SpecBeamError) as refused:
        ItemPool.open(pool)
    run_as_printed(str(refused.value), HISTORIES=histories)
    assert ItemPool.open(pool).ids == [str(i) for i in range(6)]


def test_what_a_bundle_was_exported_with_is_in_the_command(kept: Callable[[str], Path]) -> None:
    bundle = kept("bundle-2")
    content = json.loads((bundle / MANIFEST).read_bytes())
    content |= {"schema_version": 1, "draft": None, "precision": "fp16", "scoring": "constrained", "max_top_k": 7}
    content["prompt_options"] |= {"prompt": "Bought: {history}", "separator": ", "}
    content["files"]["target/checkpoint/config.json"] = {}
    titled = '{"item":"0","identifier":["<a_1>"],"title":"A lamp"}\n'
    (bundle / "catalog/items.jsonl").write_text(titled)

    def told() -> str:
        (bundle / MANIFEST).write_text(json.dumps(content))
        with pytest.raises(BundleError) as refused:
            Bundle.open(bundle)
        return str(refused.value)

    start, end = "specbeam export --target TARGET --catalog CATALOG --items ITEMS", f"--output {bundle} --overwrite"
    rest = "--scoring constrained --max-top-k 7 --precision fp16"
    prompt = "--prompt 'Bought: {history}' --separator ', ' --history-length 4"
    assert told().endswith(f"{start} {prompt} {rest} {end}")
    del content["prompt_options"]  # as older ones: the text that the prompt was compiled from is not known
    content["prompt"] |= {"separator": ", ", "suffix_ids": [3]}
    assert told().endswith(f"{start} --prompt PROMPT --separator ', ' --history-length 4 {rest} {end}")
    content["prompt"] = "elsewhere"  # what cannot be read is not asked
    assert told().endswith(f"specbeam export --target TARGET --catalog CATALOG {end}")
