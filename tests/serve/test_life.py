"""Versions come and go, processes die, and clients see none of it, or one clean error."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from transformers import PreTrainedTokenizerFast

from ftlib.registry import registry

from .conftest import TEMPLATE, World, adapter_trial, finish, tiny_model, tiny_tokenizer

PROMPT = "the quick brown"


@pytest.fixture(autouse=True)
def home(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLIB_HOME", str(world.home))


@contextmanager
def traffic(world: World, name: str, clients: int = 6) -> Iterator[tuple[Counter[str], list[Exception]]]:
    """Requests without a pause; who answered (by version), and what failed."""
    versions: Counter[str] = Counter()
    failures: list[Exception] = []
    over = threading.Event()

    def ask() -> None:
        client = world.client()
        while not over.is_set():
            try:
                answer = client.completions.create(model=name, prompt=PROMPT, max_tokens=8, temperature=0)
                versions[str(answer.system_fingerprint)] += 1
            except Exception as error:
                failures.append(error)

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask) for _ in range(clients)]
        try:
            yield versions, failures
        finally:
            over.set()
    for future in asking:
        future.result()


def until(happens: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_promote_canary_and_roll_back_under_load(world: World) -> None:
    old = world.served["support"].id
    trial = adapter_trial(world.run, "next", world.base, seed=11)
    with traffic(world, "support") as (versions, failures):
        until(lambda: versions[old] > 5)
        new = registry.register(world.run, trial, "support", canary=0.5)
        until(lambda: versions[new.id] > 5)
        seen = versions[old]
        until(lambda: versions[old] > seen + 3)  # the other half still goes there
        registry.canary("support", 1)
        until(lambda: world.client().models.retrieve("support").root == new.id)  # type: ignore[attr-defined]
        before = versions[old]
        until(lambda: versions[new.id] > 30)
        assert versions[old] <= before + 6  # those that were on their way
        registry.rollback("support")
        until(lambda: versions[old] > before + 20)
    assert failures == []
    assert set(versions) == {old, new.id}


def test_a_full_model_is_promoted_into_an_engine_of_its_own(world: World) -> None:
    trial = world.run.trial("full-2")
    tiny_model(seed=21).save_pretrained(trial.path / "model")
    tiny_tokenizer(TEMPLATE).save_pretrained(trial.path / "model")
    finish(trial, "model", world.base)
    with traffic(world, "full.model", clients=2) as (versions, failures):
        until(lambda: versions["full.model@1"] > 3)
        new = registry.register(world.run, trial, "full.model")
        until(lambda: versions[new.id] > 3)
        first = world.client().completions.create(model="full.model@1", prompt=PROMPT, max_tokens=8, temperature=0)
        assert first.system_fingerprint == "full.model@1"  # whatever the name means now
        registry.rollback("full.model")
        seen = versions["full.model@1"]
        until(lambda: versions["full.model@1"] > seen + 3)
    assert failures == []


def test_a_version_by_number_gets_the_engine_of_its_base(world: World, tmp_path: Path) -> None:
    """On another base than any that is meant; and as long as nobody asked for it, without an engine."""
    base = tmp_path / "other"
    tiny_model(seed=22).save_pretrained(base)
    tiny_tokenizer(TEMPLATE).save_pretrained(base)
    version = registry.register(world.run, adapter_trial(world.run, "moved", base, seed=23), "bare", canary=0.001)
    registry.rollback("bare")
    other = World(world.url, base, {version.id: version}, world.home, world.run)
    answer = world.client().completions.create(model=version.id, prompt=PROMPT, max_tokens=8, temperature=0)
    assert answer.choices[0].text == other.reference(version.id, PROMPT, 8)[0]
    assert answer.system_fingerprint == version.id
    assert world.client().models.retrieve("bare").root == "bare@1"  # type: ignore[attr-defined]


def test_what_comes_with_a_version_costs_nobody_else_an_answer(world: World) -> None:
    """Asked for by number: a template without an end, and a tokenizer with a token that the model has no row for."""
    trial = adapter_trial(world.run, "hostile", world.base, seed=24, template=None)
    tokenizer = tiny_tokenizer("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")
    tokenizer.add_tokens(["<|new|>"])
    tokenizer.save_pretrained(trial.path / "adapter")
    version = registry.register(world.run, trial, "support")
    registry.rollback("support")
    client = world.client()
    with traffic(world, "support", clients=2) as (versions, failures):
        began = time.monotonic()
        with pytest.raises(openai.UnprocessableEntityError, match="does not end within 5 s"):
            client.chat.completions.create(model=version.id, messages=[{"role": "user", "content": "x"}])
        assert time.monotonic() - began < 60
        for prompt in ("a <|new|> token", [320]):
            with pytest.raises(openai.BadRequestError, match="token ids go from 0 to 319 here, and 320 is none"):
                client.completions.create(model=version.id, prompt=prompt)
        seen = sum(versions.values())
        until(lambda: sum(versions.values()) > seen + 5)
    assert failures == []


def processes(name: str) -> list[psutil.Process]:
    mine = psutil.Process().children(recursive=True)
    return [process for process in mine if name in " ".join(_command(process))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize("victim", ["ServeReplica:ftlib:Engine", "ProxyActor"])
def test_a_killed_process_costs_a_clean_error_and_heals(world: World, victim: str) -> None:
    client = world.client()
    wanted = client.completions.create(model="bare", prompt=PROMPT, max_tokens=8, temperature=0).choices[0].text
    stream = client.completions.create(model="bare", prompt=PROMPT, max_tokens=3500, stream=True, temperature=0)
    next(iter(stream))
    killed = processes(victim)
    assert killed
    for process in killed:
        process.kill()
    with pytest.raises((openai.APIError, httpx.HTTPError)) as caught:
        list(stream)
    assert "Traceback" not in str(caught.value)

    def answers() -> bool:
        try:
            return (
                client.completions.create(model="bare", prompt=PROMPT, max_tokens=8, temperature=0).choices[0].text
                == wanted
            )
        except openai.APIError:
            return False

    until(answers)


def test_a_version_that_vanishes_leaves_the_others_alone(world: World) -> None:
    trial = adapter_trial(world.run, "ghost", world.base, seed=31)
    version = registry.register(world.run, trial, "bare")
    until(lambda: world.client().models.retrieve("bare").root == version.id)  # type: ignore[attr-defined]
    file = Path(version.weights) / "adapter_model.safetensors"
    file.rename(file.with_name("gone"))
    with pytest.raises(openai.APIStatusError) as caught:
        world.client().completions.create(model="bare", prompt=PROMPT, max_tokens=2)
    assert caught.value.status_code == 422
    assert "Traceback" not in str(caught.value)
    assert PreTrainedTokenizerFast.from_pretrained(version.weights) is not None
    registry.rollback("bare")
    until(lambda: world.client().models.retrieve("bare").root == "bare@1")  # type: ignore[attr-defined]
    assert world.client().completions.create(model="bare", prompt=PROMPT, max_tokens=2).choices
