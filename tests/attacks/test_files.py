"""Files that somebody has damaged, linked elsewhere or opened to others: each is named, and nothing else suffers."""

from __future__ import annotations

import hmac
import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ftlib.errors import FtlibError, InputError
from ftlib.files.atomic import replace_directory, write_text
from ftlib.files.json_files import append_row, read_json, read_rows
from ftlib.registry import backend, registry, staging
from ftlib.run import signature
from ftlib.run.directory import Run
from ftlib.run.leaderboard import leaderboard

from ..conftest import ftlib
from .conftest import made, weights


@pytest.fixture
def run(home: Path, tmp_path: Path) -> Run:
    return made(str(tmp_path / "runs"), tmp_path / "runs")


DAMAGE = {
    "empty": b"",
    "NUL bytes": b"\0" * 64,
    "no JSON": b'{"state": "fini',
    "no UTF-8": b"\xff\xfe{}",
    "no mapping": b"[1, 2]",
    "nested": b"[" * 200_000,
}


@pytest.mark.parametrize("why", DAMAGE)
@pytest.mark.parametrize("name", ["status.json", "params.json", "manifest.json", "lineage.json"])
def test_a_damaged_file_of_a_trial_is_named(run: Run, name: str, why: str) -> None:
    (run.trial("000").path / name).write_bytes(DAMAGE[why])
    with pytest.raises(FtlibError, match=f"trial 000: .*{name} is damaged .*{why}"):
        leaderboard(run)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("status.json", {"state": "won"}, "it holds no state"),
        ("status.json", {"state": "failed", "reason": ["x"]}, "its reason is no text"),
        ("manifest.json", {"metrics": "x"}, "its 'metrics' is none"),
        ("manifest.json", {"base": {"name_or_path": 7}}, "its 'base' is none"),
        ("manifest.json", {"experiment": {"model": {"name_or_path": "x", "trust_remote_code": "yes"}}}, "'experiment'"),
        ("lineage.json", {"cloned_from": 7}, "holds no lineage"),
    ],
)
def test_a_file_of_another_shape_is_named(run: Run, name: str, content: object, said: str) -> None:
    (run.trial("000").path / name).write_text(json.dumps(content))
    with pytest.raises(FtlibError, match=f"trial 000: .*{name} is damaged .*{said}"):
        leaderboard(run)


@pytest.mark.parametrize("line", [b"\0\0\0", b'{"step": ', b"7", b'{"no": "step"}', b'{"step": 4, "tokens": "x"}'])
def test_a_damaged_line_is_named(run: Run, line: bytes) -> None:
    with (run.trial("000").path / "metrics.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(FtlibError, match=r"trial 000: .*metrics.jsonl is damaged \((line|row) 2"):
        leaderboard(run)
    with run.path.joinpath("events.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(FtlibError, match=r"events.jsonl is damaged \((line|event) 2"):
        run.check()


def test_a_metric_that_is_no_number_is_named(run: Run) -> None:
    append_row(run.trial("000").metrics_path, {"step": 5, "eval_loss": "best"})
    with pytest.raises(FtlibError, match="trial 000: .*at step 5 its eval_loss is no number"):
        leaderboard(run)


@pytest.mark.parametrize("content", [b"", b"\0\0", b"{", b"[]", b'{"experiment": 7}', b'{"objective": 3}'])
def test_damaged_settings_are_named_by_each_command(run: Run, content: bytes) -> None:
    (run.path / "resolved.json").write_bytes(content)
    for command in (("leaderboard", run.path), ("resume", run.path), ("promote", run.path, "--as", "x")):
        status, output = ftlib(*command)
        assert status in (1, 2)
        assert "resolved.json" in output
        assert "defect" not in output
        assert output.count("\n") == 1


def test_a_line_takes_the_place_of_half_a_line(tmp_path: Path) -> None:
    """After a kill (half a line) or without power (NUL bytes), the next row is not glued to what is left."""
    for left in (b'{"step": 2, "lo', b"\0" * 5000):
        path = tmp_path / "rows.jsonl"
        path.write_bytes(b'{"step": 1}\n' + left)
        append_row(path, {"step": 2})
        assert read_rows(path) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("kind", ["symlink", "hard link", "pipe"])
@pytest.mark.parametrize("name", [".lock", "events.jsonl"])
def test_nothing_is_written_through_a_link(run: Run, tmp_path: Path, kind: str, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    (run.path / name).unlink(missing_ok=True)
    link: Callable[[Path, Path], None] = {"symlink": os.symlink, "hard link": os.link}.get(
        kind, lambda _, path: os.mkfifo(path)
    )
    link(victim, run.path / name)
    deed = run.log_event if name == "events.jsonl" else lambda _: run.locked().__enter__()
    with pytest.raises(FtlibError, match="symbolic link|no plain file"):
        deed("x")
    assert victim.read_text() == "mine\n"


def test_a_linked_lock_does_no_harm_to_any_command(run: Run, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (run.path / ".lock").symlink_to(victim)
    for command in (
        ("resume", "--trust", run.path),
        ("trial", "stop", run.path, "000"),
        ("sweep", run.path, "--add-trials", 1),
    ):
        status, output = ftlib(*command)
        assert status != 0
        assert "defect" not in output
        assert victim.read_text() == "mine"


@pytest.mark.parametrize("mode", [0o775, 0o757])
@pytest.mark.parametrize("inside", [".", "tune", "tune/state.json", "trials/000", "trials/000/point.json"])
def test_what_others_can_write_is_not_ours(run: Run, inside: str, mode: int) -> None:
    signature.sign(run)
    signature.check(run)
    (run.path / inside).chmod(mode)
    with pytest.raises(InputError, match="can be written by others .*chmod -R go-w.*--trust"):
        signature.check(run)


def test_a_link_out_of_a_run_makes_it_foreign(run: Run, tmp_path: Path) -> None:
    signature.sign(run)
    (run.path / "tune").rename(tmp_path / "tune")
    (run.path / "tune").symlink_to(tmp_path / "tune")
    with pytest.raises(InputError, match="is a link out of the run"):
        signature.check(run)


@pytest.mark.parametrize("content", [b"", b"short"])
def test_an_empty_key_signs_for_nobody(run: Run, home: Path, content: bytes) -> None:
    home.mkdir(exist_ok=True)
    (home / "key").write_bytes(content)
    (home / "key").chmod(0o600)
    (run.path / "signature.json").write_text(json.dumps({"signature": hmac.new(b"", b"x", "sha256").hexdigest()}))
    for deed in (lambda: signature.mac("x"), lambda: signature.check(run), lambda: signature.sign(run)):
        with pytest.raises(FtlibError, match="key is cut short, so it would sign for everybody"):
            deed()
    assert (home / "key").read_bytes() == content


def test_a_key_that_others_read_is_none(home: Path) -> None:
    signature.mac("x")
    (home / "key").chmod(0o644)
    with pytest.raises(FtlibError, match="chmod 600"):
        signature.mac("x")


def test_a_full_disk_leaves_no_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FtlibError, match="No space left"):
        signature.mac("x")
    assert list(home.iterdir()) == []


def test_first_processes_agree_on_one_key(home: Path) -> None:
    barrier, found = threading.Barrier(8), []

    def first() -> None:
        barrier.wait()
        found.append(signature.mac("x"))

    threads = [threading.Thread(target=first) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [path.name for path in home.iterdir()] == ["key"]


def test_content_is_on_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without that, a file system may bring the rename to the disk and not the content: an empty file after a power
    cut."""
    deeds: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        deeds.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        deeds.append(("rename", str(source)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_text(tmp_path / "status.json", "{}")
    assert [deed for deed, _ in deeds] == ["fsync", "rename"]
    assert deeds[0][1] == deeds[1][1]
    deeds.clear()
    (tmp_path / "staged" / "deep").mkdir(parents=True)
    (tmp_path / "staged" / "deep" / "weights").write_text("w")
    replace_directory(tmp_path / "staged", tmp_path / "adapter")
    at = deeds.index(("rename", str(tmp_path / "staged")))
    assert {Path(where).name for _, where in deeds[:at]} == {"weights", "deep", "staged"}
    assert ("fsync", str(tmp_path)) in deeds[at:]


def promoted(run: Run, name: str, b: float = 0.5) -> registry.Version:
    weights(run.trial("000"), b)
    return registry.register(run, run.trial("000"), name)


@pytest.mark.parametrize("why", [*DAMAGE, "kind"])
def test_a_damaged_manifest_stops_nobody_else(run: Run, home: Path, why: str) -> None:
    for name in ("bad", "good"):
        for b in (1, 2):
            promoted(run, name, b)
    for number in (1, 2):
        file = home / "registry" / "bad" / str(number) / "manifest.json"
        file.chmod(0o644)
        file.write_bytes(DAMAGE.get(why, b'{"kind": "poem"}'))
    assert registry.rollback("good").id == "good@1"
    assert promoted(run, "good").id == "good@3"
    status, output = ftlib("registry")
    assert status == 0
    assert "good@3" in output
    assert output.count("damaged") >= 2
    with pytest.raises(FtlibError, match="manifest.json is damaged"):
        registry.rollback("bad")  # looked at before anything moves
    assert json.loads((home / "registry" / "bad" / "current.json").read_text())["version"] == 2


@pytest.mark.parametrize("content", [b"", b"\0", b"[]", b'{"version": "1"}', b"[" * 10**5])
def test_a_damaged_alias_stops_nobody_else(run: Run, home: Path, content: bytes) -> None:
    promoted(run, "bad")
    promoted(run, "good")
    (home / "registry" / "bad" / "current.json").write_bytes(content)
    status, output = ftlib("registry")
    assert (status, "good@1" in output, "current.json is damaged" in output) == (0, True, True)
    assert promoted(run, "good").id == "good@2"
    with pytest.raises(FtlibError, match="current.json is damaged"):
        registry.rollback("bad")


def test_a_rollback_looks_before_it_moves(run: Run, home: Path) -> None:
    promoted(run, "x", 1)
    promoted(run, "x", 2)
    shutil.rmtree(home / "registry" / "x" / "1")
    with pytest.raises(FtlibError, match="x@1 .* is gone"):
        registry.rollback("x")
    assert registry.current("x").id == "x@2"


def test_a_number_is_given_once(run: Run, home: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for b in (1, 2, 3):
        promoted(run, "x", b)
    registry.rollback("x")
    shutil.rmtree(home / "registry" / "x" / "3")
    assert promoted(run, "x").id == "x@4"
    shutil.rmtree(home / "registry" / "x")
    assert promoted(run, "x").id == "x@5"
    monkeypatch.setenv(backend.VARIABLE, url)
    monkeypatch.setattr("ftlib.registry.lease.SETTLES", 0.1)
    from ftlib.files import object_store

    assert promoted(run, "x").id == "x@1"
    for gone in ("current", "versions", "files"):
        object_store.remove(f"{url}/{gone}")
    assert promoted(run, "x").id == "x@2"


def test_a_version_is_on_the_disk_before_its_name_is(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deeds: list[tuple[str, str]] = []
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        deeds.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def noted(move: Callable[..., None]) -> Callable[..., None]:
        def moved(source: object, target: object, **options: object) -> None:
            deeds.append(("rename", str(target)))
            move(source, target, **options)

        return moved

    monkeypatch.setattr(os, "fsync", synced)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, noted(getattr(os, name)))
    promoted(run, "x")
    folder = home / "registry" / "x"
    named, meant = deeds.index(("rename", str(folder / "1"))), deeds.index(("rename", str(folder / "current.json")))
    synced_before = {Path(where).name for deed, where in deeds[:named] if deed == "fsync"}
    assert {"adapter_model.safetensors", "adapter_config.json", "manifest.json", "adapter"} <= synced_before
    assert ("fsync", str(folder)) in deeds[named:meant]


def _killed(folder: Path) -> None:
    with staging.staging_in(folder) as staged:
        staged.mkdir()
        os.kill(os.getpid(), 9)


def test_copies_of_killed_promotions_are_swept_up(run: Run, home: Path) -> None:
    folder = home / "registry" / "x"
    process = multiprocessing.get_context("spawn").Process(target=_killed, args=(folder,))
    process.start()
    process.join()
    assert len(list(folder.glob(".staged-*"))) == 2
    with staging.staging_in(folder) as going_on:
        going_on.mkdir()
        promoted(run, "x")
        assert going_on.is_dir()
    assert list(folder.glob(".staged-*")) == []
    assert read_json(folder / "current.json")["version"] == 1
