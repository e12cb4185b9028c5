"""Programs in environments of their own: where they are, and what is said where they are not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ftlib.errors import InputError
from ftlib.export.environments import python_of, set_up


def test_what_is_not_set_up_is_said_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path))
    monkeypatch.delenv("FTLIB_LLAMA_CPP", raising=False)
    with pytest.raises(InputError, match=r"llama-cpp is not set up: 'ftlib setup llama-cpp' makes .* half an hour"):
        python_of("llama-cpp")
    monkeypatch.setenv("FTLIB_LLAMA_CPP", str(tmp_path / "python"))
    with pytest.raises(InputError, match=r"FTLIB_LLAMA_CPP names .*/python, which is not there"):
        python_of("llama-cpp")
    monkeypatch.setenv("FTLIB_LLAMA_CPP", sys.executable)
    assert python_of("llama-cpp") == Path(sys.executable)
    with pytest.raises(InputError, match="Did you mean 'llama-cpp'"):
        set_up("llama_cpp")
