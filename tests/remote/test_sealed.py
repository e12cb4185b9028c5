"""Secrets: sealed to one receiver, named and never shown, and given to workers from memory."""

import os

import pytest
import ray

from ftlib.cluster.vault import MARK, open_vault, receive
from ftlib.errors import FtlibError, InputError
from ftlib.remote.sealed import Receiver, from_environment, seal


def test_only_the_receiver_opens_it() -> None:
    receiver = Receiver()
    box = seal({"KEY": "pl4nted"}, receiver.public)
    assert b"pl4nted" not in box
    assert seal({"KEY": "pl4nted"}, receiver.public) != box  # a key for each message
    assert receiver.open(box) == {"KEY": "pl4nted"}
    for wrong in (Receiver(), receiver):
        damaged = box if wrong is not receiver else box[:-1] + bytes([box[-1] ^ 1])
        with pytest.raises(FtlibError, match="not sealed for this job"):
            wrong.open(damaged)
    with pytest.raises(FtlibError, match="not sealed for this job"):
        receiver.open(b"short")


def test_a_value_on_the_command_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as error:
        from_environment(["KEY=pl4nted"])
    assert "pl4nted" not in str(error.value)
    with pytest.raises(InputError, match="the environment has no NOT_SET"):
        from_environment(["NOT_SET"])
    monkeypatch.setenv("KEY", "x")
    assert from_environment(["KEY"]) == {"KEY": "x"}


@pytest.mark.usefixtures("ray_local")
def test_workers_take_them_from_the_vault() -> None:
    vault = open_vault({"FTLIB_TEST_SECRET": "pl4nted"})
    try:

        @ray.remote(num_cpus=0.1)
        def work(marked: bool) -> str | None:
            os.environ.pop("FTLIB_TEST_SECRET", None)
            if marked:
                os.environ[MARK] = "1"
            receive()
            receive()  # once a process; a second time is nothing
            return os.environ.get("FTLIB_TEST_SECRET")

        assert ray.get(work.remote(True)) == "pl4nted"
        assert ray.get(work.remote(False)) is None
    finally:
        ray.kill(vault)
        os.environ.pop("FTLIB_TEST_SECRET", None)
