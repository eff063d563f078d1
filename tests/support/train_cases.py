"""Datasets to train on."""

from typing import Any

import torch
from transformers import PreTrainedModel

from specbeam.align.training.configs import ModelSize

SIZE = ModelSize(layers=1, hidden=32, heads=2, intermediate=64)


FEW: dict[str, Any] = {"steps": 6, "checks": 2, "batch": 8}


def logits(model: PreTrainedModel, tokens: int) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model.eval()(input_ids=torch.arange(tokens)[None]).logits
    return result
