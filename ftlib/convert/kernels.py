"""Attention by its kernels: they compute the same, up to rounding."""

from __future__ import annotations

from typing import Any

from ftlib.convert.conversion import Conversion

OURS = {
    "flash_attention_2": "flash_attention_2",
    "fa2": "flash_attention_2",
    "flash_attention": "flash_attention_2",
    "sdpa": "sdpa",
    "sdp_attention": "sdpa",
    "eager": "eager",
    "eager_attention": "eager",
    "disabled": "eager",
}
OTHERS = ("flash_attention_3", "fa3", "xformers", "xformers_attention", "flex_attention", "sage", "sage_attention")


def attention(conversion: Conversion, key: str, value: Any) -> None:
    """`attn_implementation: NAME`, or the older `flash_attention: true`. Where rows are packed, a kernel that ftlib
    does not have gives way to one that also keeps them apart; else to the model's own."""
    if value is False:
        return conversion.harmless(key, "it is off")
    name = key if value is True else str(value)
    if name == "auto":
        return conversion.harmless(key, "transformers chooses the kernel")
    if name in OURS:
        return conversion.map(key, {"model.attn_implementation": OURS[name]})
    if name not in OTHERS and "/" not in name:
        return conversion.refuse(key, f"{name!r} is no kernel of attention here: use flash_attention_2, sdpa or eager")
    if conversion.get("sample_packing") or conversion.get("packing"):
        kernel = {"model.attn_implementation": "flash_attention_2"}
        return conversion.map(key, kernel, "another kernel, which keeps packed rows apart too", look=True)
    return conversion.harmless(key, "it is a kernel; transformers chooses one that computes the same")
