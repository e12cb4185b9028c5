"""Without --debug every line on the terminal is ours.

Libraries are silenced where they speak: by the settings that they read from the environment (workers inherit it), by
their loggers, by Python's own warnings. Our errors are none of these: they are printed.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Any

ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "PYTHONWARNINGS": "ignore",
    "BITSANDBYTES_NOWELCOME": "1",
}


LOUD = (  # loggers that bring handlers of their own
    "DeepSpeed",
    "bitsandbytes",
    "optuna",
    "torch.utils._pytree",
    "torch.onnx._internal.exporter._registration",
)
SILENCE = logging.NullHandler()


def quiet_libraries() -> None:
    """To be called before any of them is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore")
    warnings.showwarning = _nothing  # libraries set filters of their own
    sys.unraisablehook = _nothing  # what their finalizers raise as Python ends
    logging.getLogger().addHandler(SILENCE)  # a logger that nobody has set up prints, unless the root has a handler
    for name in LOUD:
        logging.getLogger(name).addFilter(_only_errors)


def _only_errors(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _nothing(*given: Any, **more: Any) -> None:
    """Does nothing, in the place of a function that prints."""
