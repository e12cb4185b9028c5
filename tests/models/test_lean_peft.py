"""PEFT's import leaves bitsandbytes for later, and later it is there."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

LOOKS = """
import sys
import ftlib, peft
from peft.import_utils import is_bnb_4bit_available
print("bitsandbytes" in sys.modules, is_bnb_4bit_available(), "bitsandbytes" in sys.modules)
"""


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_bitsandbytes_comes_when_it_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", LOOKS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]
