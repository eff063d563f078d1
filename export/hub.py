"""Checkpoints of a hub: fetched into its cache, only what is read of them, and what a folder of that cache is."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
from huggingface_hub import HfApi, constants, snapshot_download
from tqdm import tqdm

from ..catalog.errors import ExportError
from ..catalog.records import read_json
from ..engines.checkpoint_guard import CONFIG, SHARDS, WEIGHTS
from .hub_faults import told_faults
from .hub_names import HubName
from .quiet import quiet
from .trained import ALIGNMENT, TRAINING

ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Everything but weights that is read of a checkpoint. Neither code nor pickles, which could run, are among it.
SETTINGS = (
    CONFIG, "generation_config.json", SHARDS, ADAPTER, TRAINING, ALIGNMENT, "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model",
    "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json",
    "additional_chat_templates/*.jinja",
)  # fmt: skip
_SNAPSHOT = re.compile(r"models--(.+)/snapshots/([0-9a-f]{40})")
_SHARD = re.compile(r"[\w.-]+\.safetensors")

Bar = Callable[[str, int, int], None]  # told of what is fetched: bytes that are there, and in all


def unseen(stage: str, done: int, total: int) -> None:
    """A bar that nobody sees."""


def fetch(
    name: HubName, *, check: Callable[[Path], object] = lambda folder: None, weights: bool = True, bar: Bar = unseen
) -> Path:
    """The folder of the cache that holds a model at one commit; what lacks of it is downloaded.

    `check` is called with that folder before its weights are there, and may raise; an adapter is not checked. The
    cache, the endpoint, the login and whether there is a network are huggingface_hub's (HF_HOME, HF_ENDPOINT,
    HF_HUB_OFFLINE, `hf auth login`). Raises `ExportError` or `DiskFullError` with the reason and the remedy.
    """
    with told_faults(name), quiet():
        folder = _snapshot(name, SETTINGS, unseen)
        at = HubName(name.repository, folder.name)
        is_adapter = (folder / ADAPTER).is_file()
        if not is_adapter and not (folder / CONFIG).is_file():
            raise ExportError(
                f"{at} has neither {CONFIG} nor {ADAPTER}; expected a checkpoint as save_pretrained writes it. Check "
                "the name."
            )
        if not is_adapter:
            check(folder)
        wanted = _weights(folder, is_adapter=is_adapter)
        if weights and not all((folder / file).is_file() for file in wanted):
            _snapshot(at, wanted, bar)
            if lacking := [file for file in wanted if not (folder / file).is_file()]:
                raise ExportError(_no_weights(at, lacking[0], _class(folder)))
    return folder


def origin(folder: Path) -> str | None:
    """What a folder of a hub's cache holds, org/name@commit; None: it is another folder."""
    found = _SNAPSHOT.fullmatch("/".join(folder.parts[-3:]))
    return None if found is None else f"{found[1].replace('--', '/')}@{found[2]}"


def _snapshot(name: HubName, files: Sequence[str], bar: Bar) -> Path:
    counted = _counted(f"  fetching {name.repository}", bar)
    found = snapshot_download(
        name.repository, revision=name.revision, allow_patterns=list(files), tqdm_class=counted
    )  # fmt: skip
    return Path(found).absolute()


def _counted(stage: str, bar: Bar) -> Any:
    """What huggingface_hub takes for the class of its own bars: it shows none, and tells `bar` how many bytes came."""

    class Counted(tqdm):  # type: ignore[type-arg]  # which is for readers of types alone
        def __init__(self, *args: Any, **options: Any) -> None:
            self.counts = options.get("unit") == "B" and options.get("desc") != "Downloading bytes"  # counted twice
            self.arrived, self.alone = 0, Lock()  # several files come at once
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            if self.counts:
                with self.alone:
                    self.arrived += int(n or 0)
                    bar(stage, self.arrived, int(self.total or 0))

    return Counted


def _weights(folder: Path, *, is_adapter: bool) -> list[str]:
    """Names of the files that hold a model's weights, as its index says."""
    if is_adapter:
        return [ADAPTER_WEIGHTS]
    try:
        index = msgspec.json.decode((folder / SHARDS).read_bytes())
        return sorted({name for name in index["weight_map"].values() if _SHARD.fullmatch(name)}) or [WEIGHTS]
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LookupError, TypeError, AttributeError):
        return [WEIGHTS]  # there is none; one that is damaged is told of where weights are read


def _class(folder: Path) -> str:
    """Of transformers or peft: what loads the model of a folder, whatever its weights are stored as."""
    if (folder / ADAPTER).is_file():
        return "AutoPeftModelForCausalLM"
    config = read_json(folder / CONFIG, dict[str, Any], "expected a model's configuration", ExportError)[0]
    return "AutoModelForSeq2SeqLM" if config.get("is_encoder_decoder") else "AutoModelForCausalLM"


def _no_weights(at: HubName, file: str, kind: str) -> str:
    """What a repository without safetensors has instead, and how to convert it."""
    try:
        files = HfApi().list_repo_files(at.repository, revision=at.revision)
    except Exception:  # only what can be told depends on it
        files = []
    pickles = [name for name in files if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    found = f" (of {', '.join(pickles[:3])}, which are pickles, nothing is loaded)" if pickles else ""
    cached = f"in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set"
    where = cached if constants.HF_HUB_OFFLINE else "there"
    return (
        f"{at} has no {file} {where}; expected weights as safetensors{found}. Name a revision that has them, or "
        f"convert it once, where you trust it, and give the folder: {kind}.from_pretrained({at.repository!r})"
        ".save_pretrained(folder), and the same with AutoTokenizer."
    )
