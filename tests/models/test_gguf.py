"""A base in a GGUF file is the model that was written into it, and a file that is not whole is said so."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFWriter, TokenType

from ftlib.config import ModelSection
from ftlib.errors import ConfigError
from ftlib.files.home import home
from ftlib.models import gguf
from ftlib.models.base import base_of, fingerprint, identity, load_config, load_model, load_tokenizer, where

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(
    base: Path, file: Path, pre: str | None = "smollm", leave_out: str = "", layers: int | None = None
) -> Path:
    """The small Llama in `base` as llama.cpp writes it: its names, its order of the rotary dimensions."""
    section = ModelSection(name_or_path=str(base))
    model, tokenizer = load_model(section), load_tokenizer(section)
    config = model.config
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(layers or config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _write_tokenizer(writer, tokenizer, pre)
    for name, weight in model.state_dict().items():
        if name != "lm_head.weight" and (not leave_out or leave_out not in name):
            writer.add_tensor(_their_name(name), _their_order(name, weight, config).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _write_tokenizer(writer: GGUFWriter, tokenizer: Any, pre: str | None) -> None:
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    special = {token["content"] for token in told["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in told["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.chat_template)


def _their_name(name: str) -> str:
    if not name.startswith("model.layers."):
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]
    _, _, number, *inner, kind = name.split(".")
    return f"blk.{number}.{NAMES['.'.join(inner)]}.{kind}"


def _their_order(name: str, weight: torch.Tensor, config: Any) -> torch.Tensor:
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for projection, count in heads.items():
        if projection in name:
            rows, columns = weight.shape
            return weight.reshape(count, 2, rows // count // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    return weight


@pytest.fixture(scope="module")
def file(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(base, tmp_path_factory.mktemp("gguf") / "small.gguf")


def test_it_is_the_model_that_was_written(base: Path, file: Path) -> None:
    written, read = ModelSection(name_or_path=str(base)), ModelSection(name_or_path=str(file))
    ids = torch.arange(5, 25).reshape(1, 20)
    with torch.no_grad():
        assert torch.equal(load_model(read).eval()(ids).logits, load_model(written).eval()(ids).logits)
    ours, theirs = load_tokenizer(read), load_tokenizer(written)
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.chat_template == theirs.chat_template
    assert (ours.eos_token, ours.pad_token, ours.unk_token) == ("<|end|>", "<|pad|>", None)
    assert ours.model_max_length == 128
    text = "The apple is red.<|end|>"
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    folder = Path(where(read))
    assert (folder / "model.safetensors").exists()
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert load_config(read).eos_token_id == theirs.eos_token_id


def test_text_is_cut_as_the_file_says(base: Path, file: Path, tmp_path: Path) -> None:
    """`pre: smollm` cuts off each digit, so the blanks before one stay together; GPT-2 takes one of them along."""

    def tokens(path: Path) -> list[str]:
        found: list[str] = load_tokenizer(ModelSection(name_or_path=str(path))).tokenize("a  12")
        return found

    assert "".join(tokens(file)[-2:]) == "12"
    like_gpt2 = tokens(write_gguf(base, tmp_path / "other.gguf", "gpt-2"))
    assert like_gpt2 == load_tokenizer(ModelSection(name_or_path=str(base))).tokenize("a  12")
    pieces = json.loads((Path(where(ModelSection(name_or_path=str(file)))) / "tokenizer.json").read_text())
    assert pieces["pre_tokenizer"]["pretokenizers"][0] == {"type": "Digits", "individual_digits": True}


@pytest.mark.parametrize("pre", ["chatglm-bpe", None])
def test_a_tokenizer_that_cannot_be_read_truly_is_asked_for(pre: str | None, base: Path, tmp_path: Path) -> None:
    section = ModelSection(name_or_path=str(write_gguf(base, tmp_path / "strange.gguf", pre)))
    with pytest.raises(ConfigError, match="name the original model's tokenizer with model.tokenizer"):
        load_tokenizer(section)
    assert load_tokenizer(section.model_copy(update={"tokenizer": str(base)})).eos_token == "<|end|>"
    assert load_model(section).config.num_hidden_layers == 2


def test_a_folder_s_file_is_named_where_there_are_two(base: Path, file: Path, tmp_path: Path) -> None:
    shutil.copy(file, tmp_path / "one.gguf")
    alone = ModelSection(name_or_path=str(tmp_path))
    assert where(alone) == where(ModelSection(name_or_path=str(file)))  # by content
    shutil.copy(file, tmp_path / "two.gguf")
    with pytest.raises(ConfigError, match=r"holds 2 GGUF files: name one of them, model.name_or_path: .*one\.gguf"):
        where(alone)
    assert where(alone.model_copy(update={"gguf_file": "two.gguf"})) == where(ModelSection(name_or_path=str(file)))
    with pytest.raises(ConfigError, match=r"model.gguf_file: there is no 'tow.gguf'.*Did you mean 'two.gguf'"):
        where(alone.model_copy(update={"gguf_file": "tow.gguf"}))
    ordinary = ModelSection(name_or_path=str(base))
    assert where(ordinary) == str(base)


def cut_short(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 4096)


def cut_to_its_head(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def of_something_else(file: Path) -> None:
    file.write_bytes(b"PK\x03\x04" * 1000)


def with_a_wild_count(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[8:16] = b"\xff" * 8
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [cut_short, cut_to_its_head, emptied, of_something_else, with_a_wild_count])
def test_a_damaged_file_is_one_sentence(damage: Callable[[Path], None], file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    shutil.copy(file, broken)
    damage(broken)
    with pytest.raises(ConfigError, match=r"^model.name_or_path: '.*broken.gguf' is no whole GGUF file.*\.$") as said:
        load_model(ModelSection(name_or_path=str(broken)))
    assert "\n" not in str(said.value)
    left = [entry.name for entry in (home() / "cache" / "gguf").iterdir() if entry.is_dir()]
    assert not [name for name in left if name.startswith(".")]


def test_weights_that_the_file_lacks_are_not_drawn_at_random(base: Path, tmp_path: Path) -> None:
    lacking = write_gguf(base, tmp_path / "lacking.gguf", leave_out="layers.1.mlp.up_proj")
    with pytest.raises(ConfigError, match="it holds .* numbers of weights, and its llama model has"):
        load_model(ModelSection(name_or_path=str(lacking)))
    tall = write_gguf(base, tmp_path / "tall.gguf", layers=2**31)
    with pytest.raises(ConfigError, match="it speaks of 2147483648 layers, and holds 20 weights"):
        load_model(ModelSection(name_or_path=str(tall)))


def test_an_architecture_that_is_not_read_is_named(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "clip.gguf", "clip")
    writer.add_tensor("v.patch_embd.weight", torch.zeros(4, 4).numpy())
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    with pytest.raises(ConfigError, match="transformers does not read this kind of GGUF file, .*architecture clip"):
        load_model(ModelSection(name_or_path=str(tmp_path / "clip.gguf")))


def test_other_files_and_parts_are_refused(tmp_path: Path) -> None:
    for name, reason in (("model.bin", "no GGUF one"), ("m-00001-of-00003.gguf", "one of 3 parts: join them first")):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(ConfigError, match=reason):
            where(ModelSection(name_or_path=str(tmp_path / name)))


def test_several_at_once_make_it_once(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path))
    made: list[Path] = []
    build = gguf._dequantize
    monkeypatch.setattr(gguf, "_dequantize", lambda key, file, folder: made.append(folder) or build(key, file, folder))
    threads = [threading.Thread(target=gguf.as_folder, args=("model.name_or_path", file)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_what_was_trained_on_it_finds_it_again_without_the_cache(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path))
    section = ModelSection(name_or_path=str(file))
    base = identity(section, load_model(section))
    assert base == {"name_or_path": str(file), "revision": None, "fingerprint": fingerprint(file)}
    shutil.rmtree(tmp_path / "cache")
    again = base_of({"base": base, "experiment": {"model": section.model_dump()}}, "ours@1")
    assert load_model(again).config.num_hidden_layers == 2
