"""Silence around libraries whose warnings mean nothing to whoever exports a model."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import transformers

LOGGERS = ("torch", "torch.onnx", "torch.export", "transformers", "onnxscript", "onnx_ir", "peft")


@contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings, log lines below an error, and progress bars of the export libraries.

    What could hide behind them (weights missing, an axis fixed by the trace, a wrong graph) is
    checked by the export itself and raised as an error.
    """
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    bars = transformers.utils.logging.is_progress_bar_enabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        transformers.utils.logging.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()
