"""Which adapters are served, and beside which: what comes out is what PEFT and transformers give without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from pydantic import TypeAdapter
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from ftlib.config import AdapterSection, ModelSection
from ftlib.errors import FtlibError
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.models.adapter_files import why_not_banked
from ftlib.models.adapters.build import add_adapter
from ftlib.models.bank_routes import Mix
from ftlib.models.base import load_model
from ftlib.registry import registry
from ftlib.registry.agreement import ways_of
from ftlib.registry.version import Version
from ftlib.run.directory import Run
from serve.engine.batch import Batch
from serve.engine.messages import Ask, Refused
from serve.engine.model import Loaded, Tokenizers, encode
from serve.engine.sampling import Sampling
from serve.engine.sequence import Sequence
from serve.engine.slots import Adapter, AdapterCache, Slots, read_adapter
from serve.engine.text import Decoder
from serve.front.catalog import base_key, engine_name

from .conftest import finish, tiny_tokenizer

PROMPT = "the quick brown fox"
ADAPTERS: dict[str, dict[str, Any]] = {
    "dora": {"type": "lora", "r": 4, "use_dora": True},
    "adalora": {"type": "adalora", "init_r": 4, "target_r": 2},
    "ia3": {"type": "ia3"},
    "vera": {"type": "vera", "r": 8},
    "oft": {"type": "oft", "oft_block_size": 8},
    "boft": {"type": "boft"},
    "prefix": {"type": "prefix", "num_virtual_tokens": 4},
    "prompt": {"type": "prompt", "num_virtual_tokens": 4},
    "p_tuning": {"type": "p_tuning", "num_virtual_tokens": 4},
    "bottleneck": {"type": "bottleneck", "bottleneck_size": 8},
}


def promoted(name: str, adapter: dict[str, Any], base: Path, folder: Path, quantization: str | None = None) -> Version:
    """A version whose adapter is random and large enough to change the answer."""
    section = ModelSection(name_or_path=str(base), quantization=quantization)
    torch.manual_seed(len(name))
    model = add_adapter(load_model(section), TypeAdapter(AdapterSection).validate_python(adapter))
    for part in model.parameters():
        if part.requires_grad:
            torch.nn.init.normal_(part, std=0.3)
    run = Run.create(folder / "runs", "tiny", "", {})
    trial = run.trial(name)
    model.save_pretrained(trial.path / "adapter")
    tiny_tokenizer(None).save_pretrained(trial.path / "adapter")
    finish(trial, "adapter", base)
    manifest = read_json(trial.path / "manifest.json")
    manifest["experiment"]["model"] |= {"quantization": quantization}
    write_json(trial.path / "manifest.json", manifest)
    return registry.register(run, trial, name)


def answered(version: Version) -> str:
    """What an engine of its own says, greedily."""
    loaded, tokenizer = Loaded(version), Tokenizers().get(version)
    [prompt] = encode(Ask(version, (PROMPT,)), tokenizer, loaded.context)
    slots = Slots(loaded.model, 1, loaded.dtype)
    adapter = None if why_not_banked(version.id, version.weights) else read_adapter(version)
    said = Sequence(prompt, 8, loaded.ends, Sampling(temperature=0), Decoder(tokenizer), adapter=adapter, streams=True)
    if adapter is not None:
        slots.hold(adapter)
    batch = Batch(loaded.model, slots, loaded.reads)
    batch.admit([said])
    texts = []
    while not said.ended:
        batch.step()
        piece = said.piece()
        texts.append(piece.text if piece else "")
    return "".join(texts)


def reference(base: Path, version: Version, quantization: str | None = None) -> str:
    """What PEFT and transformers say without a server."""
    section = ModelSection(name_or_path=str(base), quantization=quantization)
    model = PeftModel.from_pretrained(load_model(section), version.weights).eval()
    tokenizer = tiny_tokenizer(None)
    inputs = tokenizer(PROMPT, return_tensors="pt", return_token_type_ids=False)
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens=8)[0, inputs.input_ids.shape[1] :]
    return str(tokenizer.decode(tokens, skip_special_tokens=True))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_kind_is_served_alone(name: str, base: Path, tmp_path: Path) -> None:
    version = promoted(name, ADAPTERS[name], base, tmp_path)
    said = answered(version)
    assert said == reference(base, version)
    tokenizer = tiny_tokenizer(None)
    inputs = tokenizer(PROMPT, return_tensors="pt", return_token_type_ids=False)
    plain = AutoModelForCausalLM.from_pretrained(base).generate(**inputs, do_sample=False, max_new_tokens=8)
    assert said != tokenizer.decode(plain[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize(
    "options",
    [
        {"r": 4, "use_rslora": True},
        {"r": 4, "rank_pattern": {"q_proj": 8}, "alpha_pattern": {"v_proj": 64}},
        {"r": 4, "target_modules": ["q_proj", "down_proj"]},
    ],
    ids=["rslora", "patterns", "few layers"],
)
def test_variants_of_lora_stand_in_a_bank(options: dict[str, Any], base: Path, tmp_path: Path) -> None:
    version = promoted("variant", {"type": "lora", **options}, base, tmp_path)
    assert why_not_banked(version.id, version.weights) is None
    assert answered(version) == reference(base, version)


def test_a_bank_that_breaks_is_seen_by_the_gate_and_the_endpoint(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One code serves and is checked."""
    version = promoted("broken", {"type": "lora", "r": 4}, base, tmp_path)
    section, probes = ModelSection(name_or_path=str(base)), [[5, 6, 7, 8]]

    def examined() -> dict[str, Any]:
        ways = ways_of(version.weights, lambda: load_model(section), section, probes, "broken", lambda model: None)
        return ways.agree("broken")

    assert examined()["bank"] < 1e-5
    add = Mix.add
    monkeypatch.setattr(Mix, "add", lambda mix, out, x, a, b: add(mix, out, x, 2 * a, b))
    with pytest.raises(FtlibError, match="in the bank that serves it, the adapter gives other logits"):
        examined()
    assert answered(version) != reference(base, version)


def test_the_gate_checks_gpt2_in_the_bank(tmp_path: Path) -> None:
    """Its linear layers are Conv1D, whose weights lie the other way round."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tiny_tokenizer(None).save_pretrained(tmp_path / "gpt2")
    adapter = {"type": "lora", "r": 4, "target_modules": ["c_attn", "c_proj", "c_fc"]}
    version = promoted("conv", adapter, tmp_path / "gpt2", tmp_path)
    section, probes = ModelSection(name_or_path=str(tmp_path / "gpt2")), [[5, 6, 7, 8]]
    ways = ways_of(version.weights, lambda: load_model(section), section, probes, "conv", lambda model: None)
    assert ways.bank is not None
    assert ways.agree("conv")["bank"] < 1e-5
    assert answered(version) == reference(tmp_path / "gpt2", version)


def test_lora_shares_a_base_and_others_do_not(base: Path, tmp_path: Path) -> None:
    lora, other = (promoted(name, {"type": "lora", "r": 4}, base, tmp_path) for name in ("lora", "other"))
    dora = promoted("dora", ADAPTERS["dora"], base, tmp_path)
    ia3, again = (promoted(name, ADAPTERS["ia3"], base, tmp_path) for name in ("ia3", "again"))
    assert engine_name(lora) == engine_name(other)
    assert len({base_key(version) for version in (lora, dora, ia3, again)}) == 4


def test_a_bank_grows_with_the_adapters_that_come(base: Path, tmp_path: Path) -> None:
    """A larger rank and other layers, while the first is loaded: both say what they said alone."""
    small = promoted("small", {"type": "lora", "r": 2, "target_modules": ["q_proj"]}, base, tmp_path)
    large = promoted("large", {"type": "lora", "r": 16}, base, tmp_path)
    loaded = Loaded(small)
    slots = Slots(loaded.model, 2, loaded.dtype)
    tokenizer = Tokenizers().get(small)
    [prompt] = encode(Ask(small, (PROMPT,)), tokenizer, None)
    rows = []
    batch = Batch(loaded.model, slots)
    for version in (small, large):
        adapter = read_adapter(version)
        rows.append(Sequence(prompt, 8, loaded.ends, Sampling(temperature=0), Decoder(tokenizer), adapter=adapter))
        assert slots.hold(adapter)
        batch.admit([rows[-1]])
        batch.step()
    while len(batch):
        batch.step()
    for version, row in zip((small, large), rows, strict=True):
        assert row.piece().text == reference(base, version)


def test_slots_go_to_those_who_use_them(base: Path, tmp_path: Path) -> None:
    adapters = {name: read_adapter(promoted(name, {"type": "lora", "r": 2}, base, tmp_path)) for name in "abcd"}
    loaded = Loaded(registry.resolve("a"))
    slots = Slots(loaded.model, 2, loaded.dtype)
    assert slots.hold(adapters["a"])
    assert slots.hold(adapters["a"])
    assert slots.hold(adapters["b"])
    assert not slots.hold(adapters["c"])
    slots.free("a@1")
    assert not slots.hold(adapters["c"])  # one still uses it
    slots.free("b@1")
    assert slots.hold(adapters["c"])  # b is the only one that nobody uses
    assert slots.resident == ["a@1", "c@1"]
    slots.free("a@1")
    slots.free("c@1")
    assert slots.hold(adapters["c"])
    assert (slots.hits, slots.misses, slots.evictions) == (2, 3, 1)
    assert slots.hold(adapters["d"])  # a was used longest ago
    assert set(slots.resident) == {"c@1", "d@1"}


def test_an_adapter_cache_reads_once_and_forgets_the_oldest(base: Path, tmp_path: Path) -> None:
    versions = [promoted(name, {"type": "lora", "r": 2}, base, tmp_path) for name in "abc"]
    reads: list[str] = []

    def read(version: Version) -> Adapter:
        reads.append(version.id)
        return read_adapter(version)

    cache = AdapterCache(2, read)
    for number in (0, 0, 1, 0, 2, 0, 1):
        assert cache.get(versions[number]).id == versions[number].id
    assert reads == ["a@1", "b@1", "c@1", "b@1"]


def test_scales_are_inside_b(base: Path, tmp_path: Path) -> None:
    version = promoted("scaled", {"type": "lora", "r": 4, "lora_alpha": 12}, base, tmp_path)
    raw = load_file(version.weights / "adapter_model.safetensors")
    found = read_adapter(version)
    assert found.rank == 4
    for name, tensor in raw.items():
        factor = 3.0 if name.endswith("lora_B.weight") else 1.0
        assert torch.equal(found.state[name.removeprefix("base_model.model.")], tensor * factor)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantized_base_is_served_quantized(quantization: str, base: Path, tmp_path: Path) -> None:
    version = promoted("small", {"type": "lora", "r": 4}, base, tmp_path, quantization)
    assert answered(version) == reference(base, version, quantization)


def test_virtual_tokens_take_room(base: Path, tmp_path: Path) -> None:
    version = promoted("prompt", ADAPTERS["prompt"], base, tmp_path)
    loaded, tokenizer = Loaded(version), Tokenizers().get(version)
    [ids] = encode(Ask(version, ([5] * 4091,)), tokenizer, loaded.context)
    assert len(ids) == 4091
    with pytest.raises(Refused, match="at most 4091 before its answer"):
        encode(Ask(version, ([5] * 4092,)), tokenizer, loaded.context)


def test_versions_with_the_same_tokenizer_share_it(base: Path, tmp_path: Path) -> None:
    one, same, other = (promoted(name, {"type": "ia3"}, base, tmp_path) for name in ("one", "same", "other"))
    (other.weights / "chat_template.jinja").write_text("{{ messages[0]['content'] }}!")
    tokenizers = Tokenizers(size=1)
    assert tokenizers.get(one) is tokenizers.get(same)
    assert tokenizers.get(other).chat_template.endswith("!")
    kept = tokenizers.get(same)  # read again: there was room for one
    assert kept.chat_template == tiny_tokenizer(None).chat_template
    assert tokenizers.get(one) is kept


@pytest.mark.parametrize(("name", "merged"), [("dora", True), ("ia3", True), ("bottleneck", False)])
def test_what_stands_alone_is_merged_where_it_can_be(name: str, merged: bool, base: Path, tmp_path: Path) -> None:
    loaded = Loaded(promoted(name, ADAPTERS[name], base, tmp_path))
    assert any(isinstance(module, BaseTunerLayer) for module in loaded.model.modules()) != merged
