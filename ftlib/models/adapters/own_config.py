"""What PEFT keeps in `adapter_config.json` of every adapter of ftlib's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from peft import PeftConfig, PeftType


def peft_type(name: str) -> PeftType:
    """PEFT's enumeration of methods is closed, and its registry takes only what is in it: one more member."""
    if name in PeftType._value2member_map_:
        return PeftType(name)
    member = str.__new__(PeftType, name)
    member._name_, member._value_ = name, name
    type.__setattr__(PeftType, name, member)
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    return member


@dataclass
class OwnConfig(PeftConfig):
    """Which layers the adapter is at, by PEFT's keys. `name` is the adapter's type."""

    name: ClassVar[str]

    target_modules: set[str] | list[str] | str | None = field(default=None)
    exclude_modules: list[str] | str | None = field(default=None)
    modules_to_save: list[str] | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = peft_type(self.name)
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
