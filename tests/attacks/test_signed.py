"""A run at a URL: whoever can write to the bucket must not choose what `resume`, or another machine, runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ftlib.errors import FtlibError, InputError, TrialError
from ftlib.files import object_store
from ftlib.files.json_files import append_row, read_json
from ftlib.run import mirror, places, remote_run, signature, trial_transfer
from ftlib.run.context import Setting
from ftlib.run.directory import Run

from .conftest import made, put


@pytest.fixture
def run(url: str, home: Path) -> Run:
    """Our own, signed and kept at a URL; then lost here."""
    run = made(url, home / "runs")
    signature.sign(run)
    keep(run)
    return run


def keep(run: Run) -> None:
    place = places.url_of(run)
    assert place is not None
    mirror.Keeper(run, place).push()
    trial_transfer.upload(setting(run), "000")


def setting(of: Run, **changes: object) -> Setting:
    values: dict[str, object] = {"run": str(of.path), "data": "x", "resolved": of.resolved["experiment"]}
    return Setting(**{**values, "key": places.key_of(of), **changes})  # type: ignore[arg-type]


def fetched(run: Run) -> Run:
    place = places.url_of(run)
    assert place is not None
    shutil.rmtree(run.path)
    return remote_run.open_run(place)


def test_what_is_ours_comes_back_as_ours(run: Run) -> None:
    signature.check(fetched(run))


FILES = [
    "resolved.json",
    "experiment.yaml",
    "events.jsonl",
    "trials/000/point.json",
    "trials/000/params.json",
    "trials/000/status.json",
    "trials/000/manifest.json",
    "trials/000/metrics.jsonl",
    "trials/000/adapter",
    "tune",
]


def _spoiled(place: str, name: str) -> None:
    """One byte more in a file, or in a small file of a directory."""
    inside = [file for file in object_store.listing(place) if file == name or file.startswith(f"{name}.")]
    there = min(inside, key=lambda file: file.endswith(".safetensors"))
    put(f"{place}/{there}", (object_store.read(f"{place}/{there}") or b"") + b" ")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_somebody_changed_is_named(run: Run, name: str) -> None:
    place = places.url_of(run)
    assert place is not None
    _spoiled(place, name)
    shutil.rmtree(run.path)
    back = remote_run.fetch(place, run.path)
    with pytest.raises(InputError, match=f"{name}.* is not as you have signed it.*--trust"):
        signature.check(back)


@pytest.mark.parametrize("where", ["", "/trials/000"])
def test_an_index_of_somebody_else_is_named(run: Run, where: str) -> None:
    place = f"{places.url_of(run)}{where}"
    told = json.loads(object_store.read(f"{place}/index.json") or b"")
    for change in ({"signature": "0" * 64}, {"signature": None}, {"machine": "other"}, {"files": {}}):
        put(f"{place}/index.json", json.dumps(told | change))
        with pytest.raises(InputError, match=r"index.json is not signed by you.*--trust"):
            signature.check(fetched(run))


def test_an_index_of_another_run_is_none(run: Run, url: str, home: Path) -> None:
    """Our own signature, of another place."""
    other = made(f"{url}/other", home / "others")
    keep(other)
    put(f"{places.url_of(run)}/index.json", object_store.read(f"{places.url_of(other)}/index.json") or b"")
    with pytest.raises(InputError, match="not signed by you"):
        signature.check(fetched(run))


def test_a_file_that_somebody_removed_is_named(run: Run) -> None:
    place = places.url_of(run)
    filesystem, path = object_store._at(f"{place}/trials/000/point.json")
    filesystem.delete_file(path)
    with pytest.raises(InputError, match=r"trials/000/point.json was removed by somebody.*--trust"):
        signature.check(fetched(run))


def test_a_run_of_somebody_else_can_be_read_and_is_not_ours(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = places.url_of(run)
    assert place is not None
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "another"))
    back = remote_run.open_run(place)
    assert back.trial("000").params == {"train.learning_rate": 0.1}
    with pytest.raises(InputError, match="not signed by you"):
        signature.check(back)
    assert not (tmp_path / "another" / "runs" / run.name / "signature.json").read_text().count('"trusted": true')


def test_a_bucket_that_was_copied_can_be_read_again_and_again(run: Run, url: str) -> None:
    place = f"{places.url_of(run)}"
    for name in object_store.listing(place):
        put(f"{url}/copy/{run.name}/{name}", object_store.read(f"{place}/{name}") or b"")
    shutil.rmtree(run.path)
    for _ in range(2):
        back = remote_run.open_run(f"{url}/copy/{run.name}")
        assert back.trial("000").params == {"train.learning_rate": 0.1}


def test_a_kill_between_index_and_files_leaves_a_run_that_is_ours(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = object_store.put, 0

    def killed(file: Path, where: str) -> None:
        nonlocal count
        count += 1
        if count > 1:
            raise KeyboardInterrupt
        real(file, where)

    append_row(run.path / "events.jsonl", {"time": 1.0, "event": "x"})
    (run.trial("000").path / "lineage.json").write_text("{}")
    with monkeypatch.context() as patch:
        patch.setattr(object_store, "put", killed)
        with pytest.raises(KeyboardInterrupt):
            keep(run)
    signature.check(fetched(run))


def test_another_machine_takes_nothing_that_was_changed(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, there = places.url_of(run), setting(run)
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "worker"))  # its own key, and what its driver has told it
    places._machine.cache_clear()
    elsewhere = setting(run, key=there.key, run=str(tmp_path / "worker" / "runs" / run.name))
    try:
        trial_transfer.download(elsewhere, "000")
        assert Run(Path(elsewhere.run)).trial("000").weights is not None
        append_row(Path(elsewhere.run) / "trials" / "000" / "metrics.jsonl", {"step": 4, "tokens": 1, "seconds": 1.0})
        trial_transfer.upload(elsewhere, "000")
        shutil.rmtree(Path(elsewhere.run))
        trial_transfer.download(elsewhere, "000")  # what it has left itself
        shutil.rmtree(Path(elsewhere.run))
        _spoiled(f"{place}/trials/000", "adapter")
        with pytest.raises(TrialError, match=r"trials/000/adapter.* is not as you have signed it.*--trust"):
            trial_transfer.download(elsewhere, "000")
        assert not (Path(elsewhere.run) / "trials" / "000").exists()
        trial_transfer.download(setting(run, key=there.key, run=elsewhere.run, trusted=True), "000")
    finally:
        places._machine.cache_clear()
    monkeypatch.setenv("FTLIB_HOME", str(home))
    keeper = mirror.Keeper(run, f"{place}")
    put(f"{place}/trials/000/manifest.json", b'{"kind": "model"}')
    with pytest.raises(FtlibError, match="manifest.json is not as you have signed it"):
        keeper._pull()
    assert read_json(run.trial("000").path / "manifest.json")["kind"] == "adapter"


def test_another_machine_takes_no_other_data(url: str, run: Run, home: Path, tmp_path: Path) -> None:
    data = tmp_path / "data" / "abc"
    data.mkdir(parents=True)
    (data / "report.json").write_text("{}")
    mirror.keep_data(url, data)
    content = signature.content_of(data)
    shutil.rmtree(data)
    told = setting(run, data=str(data), data_content=content)
    trial_transfer.download(told)
    assert (data / "report.json").read_text() == "{}"
    shutil.rmtree(data)
    (name,) = [file for file in object_store.listing(f"{url}/.data") if file.endswith("report.json")]
    put(f"{url}/.data/{name}", "evil")
    with pytest.raises(TrialError, match="is not the data that the driver has prepared"):
        trial_transfer.download(told)
    assert not data.exists()
