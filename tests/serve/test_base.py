"""`NAME@base`: the base of a version answers beside its adapters, under the keys of the name."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from ftlib.registry import keys, registry
from ftlib.run.directory import Run
from serve.engine.messages import Refused
from serve.engine.model import Tokenizers
from serve.front.catalog import Catalog

from .conftest import TEMPLATE, World, adapter_trial

PROMPT = "the quick brown"


def of_base(world: World, text: str, new_tokens: int, special: bool = True) -> str:
    """What transformers writes with the base, greedily, without a server."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(world.base)
    inputs = tokenizer(text, return_tensors="pt", add_special_tokens=special, return_token_type_ids=False)
    model = AutoModelForCausalLM.from_pretrained(world.base).eval()
    answer = model.generate(**inputs, do_sample=False, max_new_tokens=new_tokens)[0, inputs.input_ids.shape[1] :]
    return str(tokenizer.decode(answer, skip_special_tokens=True))


def test_the_base_answers_beside_its_adapters_as_transformers_does(world: World, client: openai.OpenAI) -> None:
    names = ["support@base", "support", "bare@base", "support@1@base", "bare", "support@base"]

    def complete(name: str) -> openai.types.Completion:
        return client.completions.create(model=name, prompt=PROMPT, max_tokens=24, temperature=0)

    with ThreadPoolExecutor(len(names)) as pool:
        answers = dict(zip(names, pool.map(complete, names), strict=True))
    texts = {name: answer.choices[0].text for name, answer in answers.items()}
    wanted = of_base(world, PROMPT, 24)
    assert [texts[name] for name in names if name.endswith("@base")] == [wanted] * 4
    assert [texts[name] for name in ("support", "bare")] == [
        world.reference(name, PROMPT, 24)[0] for name in ("support", "bare")
    ]
    assert wanted not in (texts["support"], texts["bare"])
    told = {name: answer.system_fingerprint for name, answer in answers.items()}
    assert told["support@base"] == f"{world.served['support'].id}@base"
    assert told["support@1@base"] == "support@1@base"


def test_the_base_reads_a_chat_with_its_own_template(world: World, client: openai.OpenAI) -> None:
    """The version `bare` has none."""
    turn = {"role": "user", "content": "größe"}
    answer = client.chat.completions.create(model="bare@base", messages=[turn], temperature=0, max_tokens=16)
    assert answer.choices[0].message.content == of_base(world, world.rendered(("user", "größe")), 16, special=False)


def test_a_base_without_a_template_has_the_version_s(promoted: None, tmp_path: Path, base: Path) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(base, plain)
    (plain / "chat_template.jinja").unlink()
    run = Run.open(next((tmp_path / "runs").iterdir()))
    version = registry.register(run, adapter_trial(run, "three", plain, seed=5), "three")
    assert Tokenizers().get(version, bare=True).chat_template == TEMPLATE
    one = registry.resolve("one")
    tokenizers = Tokenizers()
    assert tokenizers.get(one, bare=True) is tokenizers.get(registry.resolve("two"), bare=True)


def test_a_model_that_holds_no_base_alone_says_so(world: World, client: openai.OpenAI) -> None:
    for name in ("full.model", "sorter"):
        with pytest.raises(openai.NotFoundError, match=f"{name}@1 has no '@base' here: its engine holds"):
            client.completions.create(model=f"{name}@base", prompt=PROMPT)
    with pytest.raises(openai.NotFoundError, match="'support@9@base' is not served here"):
        client.completions.create(model="support@9@base", prompt=PROMPT)


def test_a_key_opens_the_base_with_the_name(world: World) -> None:
    path = world.home / "keys.json"
    token = keys.add("base-partner", ["support"], path=path)
    client = world.client(token)
    try:
        assert client.completions.create(model="support@base", prompt="x", max_tokens=1).choices
        assert {model.id for model in client.models.list()} >= {"support", "support@base"}
        assert not [model.id for model in client.models.list() if not model.id.startswith("support")]
        assert client.models.retrieve("support@base").id == "support@base"
        with pytest.raises(openai.PermissionDeniedError):
            client.completions.create(model="bare@base", prompt="x", max_tokens=1)
        live = httpx.get(f"{world.url}/v1/live", headers={"authorization": f"Bearer {token}"}).json()
        assert all(version.startswith("support@") for version in live["versions"])
        assert f"{world.served['support'].id}@base" in live["versions"]
    finally:
        keys.remove("base-partner", path)


def test_without_the_option_there_is_no_base(promoted: None) -> None:
    without, having = Catalog(["one"]), Catalog(["one"], base=True)
    for catalog in (without, having):
        catalog.refresh()
    with pytest.raises(Refused, match="'one@base' is not served here"):
        without.route("one@base")
    assert without.bases() == []
    assert having.route("one@base").id == "one@1"
    assert [entry.name for entry in having.bases()] == ["one@base"]
    with pytest.raises(Refused, match="'one@base@base' is not served here"):
        having.route("one@base@base")
