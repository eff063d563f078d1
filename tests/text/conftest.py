"""What several test files of this folder share."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from specbeam.engines.build import build_engine
from specbeam.evaluate.generate import isolated_generate
from specbeam.export.text import export_text
from text_cases import LIMIT, PROMPTS
from tiny_models import make_text_tokenizer, tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), tokenizer=make_text_tokenizer(), tied=True)


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "bundle"
    export_text(checkpoint, path, prompt="About {prompt}:")
    build_engine(path)
    return path


@pytest.fixture(scope="module")
def greedy(checkpoint: Path) -> dict[str, list[int]]:
    """What transformers writes behind every prompt."""
    tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), AutoModelForCausalLM.from_pretrained(checkpoint)
    written = {}
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer(f"About {prompt}:")["input_ids"]])
        settings = {"max_new_tokens": LIMIT, "eos_token_id": model.generation_config.eos_token_id}
        out = isolated_generate(model, ids, settings)
        written[prompt] = out[0, ids.shape[1] :].tolist()
    return written
