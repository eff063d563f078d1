"""Silence around libraries whose warnings mean nothing to whoever exports a model."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

LOGGERS = ("torch", "torch.onnx", "torch.export", "transformers", "onnxscript", "onnx_ir", "peft")


@contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings, log lines below an error, and progress bars of the export libraries.

    What could hide behind them (weights missing, an axis fixed by the trace, a wrong graph) is
    checked by the export itself and raised as an error.
    """
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    bars = is_progress_bar_enabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        disable_progress_bar()  # type: ignore[no-untyped-call]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            enable_progress_bar()  # type: ignore[no-untyped-call]
