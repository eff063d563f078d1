"""What is in a pool, for people and for programs."""

from datetime import datetime
from pathlib import Path

from ..catalog.errors import PoolError
from ..engines.bundle.checklist import Checklist, Damage
from ..engines.bundle.facts import FileFacts
from .files import POOL_FILE, build_command, pool_kind, read_facts
from .items import pool as item_pool
from .items.pool import ItemPoolFacts
from .texts import pool as text_pool
from .texts.pool import TextPoolFacts

SOURCES = {"text": text_pool.SOURCES, "items": item_pool.SOURCES}  # by kind, what one is built from
SHOWN = 20  # groups
Facts = ItemPoolFacts | TextPoolFacts


def pool_facts(path: Path) -> Facts:
    """What pool.json says, whatever kind of pool it is. Raises `PoolError` where it is damaged, or of another."""
    kind = pool_kind(path) or "text"
    if kind not in SOURCES:
        raise PoolError(f"{path} is a pool of kind {kind!r}; expected {' or '.join(SOURCES)}. Build one of these.")
    if kind == "items":
        return read_facts(path, kind, ItemPoolFacts, build_command(path, SOURCES[kind]))
    return read_facts(path, kind, TextPoolFacts, build_command(path, SOURCES[kind]))


def written(path: Path) -> str:
    """When a pool was written: its file's time, which copying may have changed."""
    return datetime.fromtimestamp((path / POOL_FILE).stat().st_mtime).astimezone().isoformat(" ", "minutes")


def describe_pool(path: Path) -> str:
    """A few lines of text."""
    facts = pool_facts(path)
    size = sum(array.bytes for array in facts.arrays.values())
    head = f"{path}: a pool of {'texts' if facts.kind == 'text' else 'items'}, SpecBeam {facts.specbeam_version}"
    lines = [f"{head}, schema {facts.schema_version}, {size / 1e6:.1f} MB, written {written(path)}"]
    lines += _texts(facts) if isinstance(facts, TextPoolFacts) else _items(facts)
    return "\n".join(lines)


def pool_content(path: Path) -> dict[str, object]:
    """The same as one JSON object."""
    return {"pool": pool_facts(path), "written": written(path)}


def _texts(facts: TextPoolFacts) -> list[str]:
    groups = list(facts.groups.items())
    lines = [
        f"  texts      {facts.all.texts:,} of {facts.all.tokens:,} tokens, {facts.all.pairs:,} different pairs of them",
        f"  drafts     windows of at most {facts.reach} tokens",
        f"  tokenizer  SHA-256 {facts.tokenizer_sha256}",
        f"  groups     {len(groups) or 'none'}",
    ]
    lines += [f"    {name}: {own.texts:,} texts, {own.tokens:,} tokens" for name, own in groups[:SHOWN]]
    return lines + [f"    and {len(groups) - SHOWN} more"] * (len(groups) > SHOWN)


def _items(facts: ItemPoolFacts) -> list[str]:
    names = ", ".join(facts.groups[:SHOWN]) + f" and {len(facts.groups) - SHOWN} more" * (len(facts.groups) > SHOWN)
    return [
        f"  histories  {facts.histories:,}, with {facts.interactions:,} purchases of {facts.items:,} items",
        f"  followers  up to {facts.window} items behind",
        f"  groups     {f'{len(facts.groups)}: {names}' if facts.groups else 'none'}",
    ]


def pool_checklist(path: Path) -> Checklist:
    """What there is to check of a pool."""
    found = Checklist(path, sealed=[POOL_FILE])
    try:
        facts = pool_facts(path)
    except PoolError as error:
        sources = SOURCES.get(pool_kind(path) or "")
        remedy = "specbeam build-pool --help" if sources is None else build_command(path, sources)
        found.damaged.append(Damage(file=POOL_FILE, fault=str(error), remedy=remedy))
        found.unknown.append("")  # all of it
        return found
    files = {f"{name}.npy": FileFacts(sha256=one.sha256, bytes=one.bytes) for name, one in facts.arrays.items()}
    found.list_files(files, build_command(path, SOURCES[facts.kind]))
    return found
