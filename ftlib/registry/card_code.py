"""The part of a model card that is code: how to serve a version, and how to load it without ftlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

ASK = """\
chat = [{"role": "user", "content": "..."}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
"""
ASK_PLAIN = 'inputs = tokenizer("...", return_tensors="pt")\n'
WRITE = """\
answer = model.generate(**inputs, max_new_tokens=64)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""
SORT = "print(labels[int(model(**inputs).logits.argmax())])\n"


def code_of(name: str, manifest: Mapping[str, Any]) -> str:
    """Commands and Python for a version, to run in the folder of its card."""
    blocks = ["With ftlib, from its registry:", f"```bash\nftlib serve {name}\n```"]
    if manifest.get("kind") == "adapter":
        blocks += ["With PEFT, in the folder of this card:", _python(_with_peft(manifest), manifest)]
        blocks += ["With transformers, which finds the base by `adapter/adapter_config.json`:"]
        blocks += [_python(_with_transformers("adapter", manifest), manifest)]
    else:
        blocks += ["With transformers, in the folder of this card:"]
        blocks += [_python(_with_transformers("model", manifest), manifest)]
    return "\n\n".join(blocks)


def _python(load: str, manifest: Mapping[str, Any]) -> str:
    ask = ASK if manifest.get("chat_template") and not manifest.get("labels") else ASK_PLAIN
    return f"```python\n{load}\n{ask}{SORT if manifest.get('labels') else WRITE}```"


def _with_peft(manifest: Mapping[str, Any]) -> str:
    auto = _auto(manifest)
    return (
        f"from peft import PeftModel\nfrom transformers import {auto}, AutoTokenizer\n\n"
        f"{_labels(manifest)}"
        f"base = {auto}.from_pretrained({_base(manifest)}){_note(manifest)}\n"
        'model = PeftModel.from_pretrained(base, "adapter")\n'
        'tokenizer = AutoTokenizer.from_pretrained("adapter")\n'
    )


def _with_transformers(folder: str, manifest: Mapping[str, Any]) -> str:
    auto = _auto(manifest)
    count = ", num_labels=len(labels)" if manifest.get("labels") and folder == "adapter" else ""
    return (
        f"from transformers import {auto}, AutoTokenizer\n\n"
        f"{_labels(manifest)}"
        f'model = {auto}.from_pretrained("{folder}"{count})\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{folder}")\n'
    )


def _auto(manifest: Mapping[str, Any]) -> str:
    return "AutoModelForSequenceClassification" if manifest.get("labels") else "AutoModelForCausalLM"


def _labels(manifest: Mapping[str, Any]) -> str:
    return f"labels = {manifest['labels']!r}\n" if manifest.get("labels") else ""


def _base(manifest: Mapping[str, Any]) -> str:
    """The arguments that load the base."""
    base, section = manifest.get("base") or {}, (manifest.get("experiment") or {}).get("model") or {}
    name = str(base.get("name_or_path", "BASE"))
    arguments = [repr(name if _is_on_hub(base) else Path(name).name)]
    arguments += [f"revision={base['revision']!r}"] if base.get("revision") else []
    arguments += [f"gguf_file={section['gguf_file']!r}"] if isinstance(section.get("gguf_file"), str) else []
    arguments += ["num_labels=len(labels)"] if manifest.get("labels") else []
    return ", ".join(arguments)


def _note(manifest: Mapping[str, Any]) -> str:
    """What a reader has to put in the place of a folder's name."""
    base = manifest.get("base") or {}
    if base.get("parent"):
        return "  # ftlib merge makes this folder of the parent that Lineage names"
    return "" if _is_on_hub(base) else "  # the folder of the base that Lineage names"


def _is_on_hub(base: Mapping[str, Any]) -> bool:
    """A folder of somebody's machine has a fingerprint."""
    return base.get("fingerprint") is None and not Path(str(base.get("name_or_path", ""))).is_absolute()
