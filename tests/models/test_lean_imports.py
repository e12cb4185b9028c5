"""PEFT's import leaves bitsandbytes for later, and that of transformers SciPy; later they are there."""

import gc
import subprocess
import sys
from importlib.util import find_spec

import pytest

from ftlib.models.lean_imports import uncollected

LOOKS = """
import importlib.util, sys
import ftlib
importlib.util.find_spec("peft")  # as transformers does, in order to know whether it is there
import peft
from peft.import_utils import is_bnb_4bit_available
from torch import nn
from ftlib.models.lean_imports import without_bitsandbytes
with without_bitsandbytes():
    peft.get_peft_model(nn.Sequential(nn.Linear(2, 2)), peft.LoraConfig(target_modules=["0"]))
print("bitsandbytes" in sys.modules, is_bnb_4bit_available(), "bitsandbytes" in sys.modules)
"""


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_bitsandbytes_comes_when_it_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", LOOKS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]


SOLVES = """
import sys
import ftlib, transformers.modeling_utils, transformers.loss.loss_for_object_detection as loss
print("scipy.optimize" in sys.modules)
print(loss.linear_sum_assignment([[1, 0], [0, 1]])[1].tolist(), "scipy.optimize" in sys.modules)
import scipy.optimize
print(scipy.optimize.linear_sum_assignment is not loss.linear_sum_assignment)
"""


def test_scipy_comes_when_its_function_is_called() -> None:
    done = subprocess.run([sys.executable, "-c", SOLVES], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "[1,", "0]", "True", "True"]


def test_imports_look_for_no_garbage() -> None:
    before = gc.get_freeze_count()
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > before
