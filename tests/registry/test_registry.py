"""The registry: what may be promoted, what a version is, and which one a name means."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ftlib.errors import FtlibError, InputError
from ftlib.files import locks, object_store
from ftlib.files.atomic import write_json
from ftlib.registry import backend, lease, promotable, registry
from ftlib.registry.folder_backend import FolderBackend
from ftlib.run.directory import Run, Trial
from tests.remote.conftest import free_ports
from tests.support.stores import BUCKET, s3_here

ONLY_A_FOLDER = pytest.mark.parametrize("home", ["folder"], indirect=True)
KEY = "model.layers.0.self_attn.q_proj.lora_{}.weight"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Of a real S3-compatible server."""
    with s3_here(*free_ports(1)):
        yield f"s3://{BUCKET}"


@pytest.fixture(autouse=True, params=["folder", "s3"])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where versions are; the registry is there too, or at a store."""
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    if request.param == "s3":
        monkeypatch.setattr(lease, "SETTLES", 0.1)
        monkeypatch.setenv(backend.VARIABLE, f"{request.getfixturevalue('bucket')}/{secrets.token_hex(4)}")
    return tmp_path / "home"


def in_folder() -> bool:
    return isinstance(backend.backend(), FolderBackend)


def left_behind() -> list[str]:
    """What the registry holds of `support` besides its alias, its lock and the versions; and copies that nobody
    needs."""
    place = backend.backend()
    if isinstance(place, FolderBackend):
        known = {".lock", "current.json", *map(str, place.numbers("support"))}
        return sorted({path.name for path in (place.root / "support").iterdir()} - known)
    files = {name.split("/")[1] for name in object_store.listing(place.url) if name.startswith("files/")}
    staged = [path.name for path in place._cache.glob(".*")]
    return sorted(files - {place.manifest("support", number)["files"] for number in place.numbers("support")}) + staged


def write_alias(text: str) -> None:
    where = backend.backend().alias_at("support")
    if in_folder():
        Path(where).write_text(text)
    else:
        object_store.put_bytes(text.encode(), where)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs", "tiny", "", {})


def trained(run: Run, trial_id: str = "a", b: float = 0.5, state: str = "finished") -> Trial:
    """A trial with a LoRA of one matrix pair, as training leaves it."""
    trial = run.trial(trial_id)
    folder = trial.path / "adapter"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {KEY.format("A"): np.ones((2, 4), "f4"), KEY.format("B"): np.full((4, 2), b, "f4")},
        folder / "adapter_model.safetensors",
    )
    (folder / "adapter_config.json").write_text("{}")
    write_json(trial.path / "manifest.json", {"kind": "adapter", "step": 7, "metrics": {"eval_loss": 1.5}})
    trial.set_state(state)
    return trial


def test_a_promotion_is_a_copy_with_its_origin(run, home):
    trial = trained(run)
    version = registry.register(run, trial, "support")
    assert (version.id, version.kind) == ("support@1", "adapter")
    assert version.path.is_relative_to(home)
    assert (version.path == home / "registry" / "support" / "1") == in_folder()
    assert version.manifest["step"] == 7
    assert (version.manifest["name"], version.manifest["version"]) == ("support", 1)
    assert (version.manifest["run"], version.manifest["trial"]) == (str(run.path), "a")
    before = (version.weights / "adapter_model.safetensors").read_bytes()
    trained(run, b=9)
    assert (version.weights / "adapter_model.safetensors").read_bytes() == before
    assert not (version.weights / "adapter_model.safetensors").stat().st_mode & 0o222
    assert left_behind() == []


def test_a_full_model_is_a_version_too(run):
    trial = run.trial("full")
    (trial.path / "model").mkdir(parents=True)
    save_file({"weight": np.zeros((2, 2), "f4")}, trial.path / "model" / "model.safetensors")
    trial.set_state("stopped")
    assert registry.register(run, trial, "full").kind == "model"


def test_weights_half_replaced_are_promoted_under_their_own_name(run):
    trial = trained(run)
    (trial.path / "adapter").rename(trial.path / ".adapter.old")
    assert registry.register(run, trial, "support").weights.name == "adapter"


def test_the_alias_follows_promotions_and_rolls_back(run):
    for number in (1, 2, 3):
        assert registry.register(run, trained(run, b=number), "support").number == number
    assert registry.current("support").id == "support@3"
    assert registry.rollback("support").id == "support@2"
    assert registry.resolve("support").id == "support@2"
    assert registry.register(run, trained(run), "support").number == 4
    assert [registry.rollback("support").number for _ in range(2)] == [2, 1]
    with pytest.raises(InputError, match="support@1 is the first version"):
        registry.rollback("support")
    assert [version.number for version in registry.versions("support")] == [1, 2, 3, 4]
    assert registry.names() == ["support"]


def test_references_that_lead_nowhere_say_what_there_is(run):
    with pytest.raises(InputError, match="empty: promote a trial"):
        registry.resolve("support")
    registry.register(run, trained(run), "support")
    assert registry.resolve("support@1") == registry.current("support")
    with pytest.raises(InputError, match="Did you mean 'support'"):
        registry.resolve("suport")
    with pytest.raises(InputError, match="There is support"):
        registry.current("elsewhere")
    for wrong in ("support@2", "support@", "support@01", "support@../1"):
        with pytest.raises(InputError, match=r"there is support@1"):
            registry.resolve(wrong)


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "a/b", "/etc", ".hidden", "-x", "Support", "a b", "a@1", "a\n", "x" * 65]
)
def test_a_name_is_never_a_path(run, home, name):
    for action in (
        lambda: registry.register(run, trained(run), name),
        lambda: registry.resolve(name),
        lambda: registry.rollback(name),
    ):
        with pytest.raises(InputError, match=r"cannot be a registry name|has no version|not in the registry"):
            action()
    assert not home.exists()


def test_what_must_not_be_promoted(run, tmp_path):
    refused = {}
    failed = trained(run, "failed", state="failed")
    failed.set_state("failed", "the loss became NaN at step 3")
    refused["the loss became NaN at step 3"] = failed
    refused["saved no weights"] = run.trial("nothing")
    refused["changes nothing"] = trained(run, "untrained", b=0)
    empty = trained(run, "empty")
    save_file({}, empty.path / "adapter" / "adapter_model.safetensors")
    refused["holds no tensors"] = empty
    pickled = trained(run, "pickled")
    (pickled.path / "adapter" / "adapter_model.safetensors").rename(pickled.path / "adapter" / "adapter_model.bin")
    refused[r"no tensors in safetensors"] = pickled
    cut = trained(run, "cut")
    (cut.path / "adapter" / "adapter_model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    refused["cut short"] = cut
    linked = trained(run, "linked")
    (linked.path / "adapter" / "link.json").symlink_to("/etc/passwd")
    refused["symbolic link"] = linked
    for reason, trial in refused.items():
        with pytest.raises(InputError, match=reason):
            registry.register(run, trial, "support")
    assert registry.names() == []


def test_a_bfloat16_adapter_is_read(run):
    """numpy knows no bfloat16, so the check reads bytes."""
    header = {KEY.format("B"): {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    for data, good in ((b"\0\0\0\0", False), (b"\0\0\x80\x3f", True)):
        trial = trained(run, f"t{good}")
        text = json.dumps(header).encode()
        (trial.path / "adapter" / "adapter_model.safetensors").write_bytes(
            len(text).to_bytes(8, "little") + text + data
        )
        if good:
            assert registry.register(run, trial, "support").number == 1
        else:
            with pytest.raises(InputError, match="changes nothing"):
                registry.register(run, trial, "support")


def test_weights_replaced_while_they_are_copied_are_refused(run, monkeypatch):
    trial = trained(run)
    copy = promotable.shutil.copytree

    def slow_copy(source, target):
        copy(source, target)
        (trial.path / "adapter").rename(trial.path / "gone")
        copy(trial.path / "gone", trial.path / "adapter")

    monkeypatch.setattr(promotable.shutil, "copytree", slow_copy)
    with pytest.raises(InputError, match="promote it again"):
        registry.register(run, trial, "support")
    assert left_behind() == []


@ONLY_A_FOLDER
def test_promotions_at_once_get_different_numbers(run, monkeypatch):
    """Also without the lock, as on a file system that has none: renaming alone keeps numbers apart."""
    monkeypatch.setattr(locks.fcntl, "flock", lambda *_: None)
    trials = [trained(run, f"t{number}", b=number + 1) for number in range(12)]
    barrier, numbers = threading.Barrier(len(trials)), []

    def promote(trial: Trial) -> None:
        barrier.wait()
        numbers.append(registry.register(run, trial, "support").number)

    threads = [threading.Thread(target=promote, args=[trial]) for trial in trials]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 13))
    found = registry.versions("support")
    assert sorted(version.manifest["trial"] for version in found) == sorted(trial.id for trial in trials)
    assert all(version.manifest["version"] == version.number for version in found)


def test_locked_promotions_leave_a_whole_history(run):
    count = 12 if in_folder() else 4
    trials = [trained(run, f"t{number}") for number in range(count)]
    threads = [threading.Thread(target=registry.register, args=[run, trial, "support"]) for trial in trials]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alias = json.loads(backend.backend().alias("support") or b"")
    assert alias == {"version": count, "history": list(range(1, count + 1))}


def test_a_canary_is_tried_then_is_all_or_nothing(run):
    registry.register(run, trained(run), "support")
    assert registry.alias("support") == registry.Alias(registry.resolve("support@1"))
    second = registry.register(run, trained(run, b=2), "support", canary=0.1)
    assert registry.current("support").id == "support@1"
    assert registry.alias("support") == registry.Alias(registry.resolve("support@1"), second, 0.1)
    assert registry.canary("support", 0.5).share == 0.5
    assert registry.rollback("support").id == "support@1"  # ends the canary, and moves nothing else
    assert registry.alias("support").canary is None
    third = registry.register(run, trained(run, b=3), "support", canary=0.2)
    assert registry.canary("support", 1) == registry.Alias(third)
    assert registry.rollback("support").id == "support@1"  # what was served before it, not the canary that failed
    registry.register(run, trained(run, b=4), "support", canary=0.2)
    assert registry.canary("support", 0) == registry.Alias(registry.resolve("support@1"))


def test_a_promotion_ends_the_canary_before_it(run):
    for b, share in ((1, None), (2, 0.1), (3, 0.2)):
        registry.register(run, trained(run, b=b), "support", canary=share)
    assert registry.alias("support").canary.number == 3
    assert registry.register(run, trained(run, b=4), "support").number == 4
    assert registry.alias("support") == registry.Alias(registry.resolve("support@4"))


def test_shares_and_canaries_that_are_none(run):
    with pytest.raises(InputError, match="not in the registry"):
        registry.register(run, trained(run), "support", canary=0.1)
    registry.register(run, trained(run), "support")
    for share in (0, 1, -0.1, 1.5, float("nan")):
        with pytest.raises(InputError, match="no share"):
            registry.register(run, trained(run), "support", canary=share)
    assert len(registry.versions("support")) == 1
    with pytest.raises(InputError, match="has no canary: start one"):
        registry.canary("support", 0.5)
    registry.register(run, trained(run), "support", canary=0.5)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="no share"):
            registry.canary("support", share)


def test_a_reader_never_sees_half_a_move(run):
    """One thread moves the alias in every way, another reads: each version it sees is there, each share fits."""
    registry.register(run, trained(run), "support")
    over, seen = threading.Event(), []

    def read() -> None:
        while not over.is_set():
            alias = registry.alias("support")
            assert alias.version.weights.is_dir()
            assert (alias.canary is None) == (alias.share == 0.0)
            assert alias.canary is None or alias.canary.weights.is_dir()
            seen.append(alias)

    errors = []
    reader = threading.Thread(target=lambda: errors.extend(_error_of(read)))
    reader.start()
    for _ in range(20 if in_folder() else 2):
        registry.register(run, trained(run), "support", canary=0.1)
        registry.canary("support", 0.7)
        registry.canary("support", 1)
        registry.rollback("support")
    over.set()
    reader.join()
    assert errors == []
    assert len({alias.share for alias in seen}) == 3


def _error_of(call) -> list[BaseException]:
    try:
        call()
    except BaseException as error:
        return [error]
    return []


def test_what_examines_a_promotion_sees_the_copy_and_can_end_it(run):
    trial = trained(run)

    def look(staged: registry.Version) -> dict[str, object]:
        assert staged.weights.is_dir()
        assert staged.manifest["step"] == 7
        (staged.path / "profile.json").write_text("{}")
        return {"gate": "open"}

    version = registry.register(run, trial, "support", examine=look)
    assert version.manifest["gate"] == "open"
    assert not (version.path / "profile.json").stat().st_mode & 0o222

    def refuse(staged: registry.Version) -> dict[str, object]:
        raise InputError("worse")

    with pytest.raises(InputError, match="worse"):
        registry.register(run, trial, "support", examine=refuse)
    assert left_behind() == []
    assert [left.number for left in registry.versions("support")] == [1]


def test_what_compares_sees_the_version_that_it_replaces(run):
    """Another promotion is faster: it is compared again, with that one, and refused all the same where that is
    right."""
    registry.register(run, trained(run), "support")
    seen: list[str] = []

    def compare(reference: registry.Version | None) -> dict[str, object]:
        assert reference is not None
        seen.append(reference.id)
        if len(seen) == 1:
            registry.register(run, trained(run, "faster"), "support")
        if len(seen) == 4:
            raise FtlibError("worse than that one")
        return {"compared": reference.id}

    version = registry.register(run, trained(run), "support", compare=compare)
    assert (version.id, seen) == ("support@3", ["support@1", "support@2"])
    assert version.manifest["compared"] == "support@2"
    assert registry.register(run, trained(run), "support", compare=compare).number == 4
    with pytest.raises(FtlibError, match="worse than that one"):
        registry.register(run, trained(run), "support", compare=compare)
    assert seen == ["support@1", "support@2", "support@3", "support@4"]
    assert registry.current("support").number == 4
    assert left_behind() == []


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"version": 1}',
        '{"version": 2, "history": [1]}',
        '{"version": 1, "history": [1], "canary": {"version": 2}}',
        '{"version": 1, "history": [1], "canary": {"version": 1, "share": 7}}',
    ],
)
def test_a_damaged_alias_says_how_to_mend_it(run, text):
    registry.register(run, trained(run), "support")
    write_alias(text)
    with pytest.raises(FtlibError, match=r'write \{"version": 1, "history": \[1\]\}') as error:
        registry.alias("support")
    assert isinstance(error.value, FtlibError)
    assert str(registry.aliases()["support"]) == str(error.value)
    write_alias('{"version": 9, "history": [9]}')
    with pytest.raises(FtlibError, match="support@9 is what 'support' means, but .* is gone"):
        registry.alias("support")
