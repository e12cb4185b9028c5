"""What becomes of a configuration: the experiment that grows, and the fate of each of its keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ftlib.config.loader import set_dotted

Kind = Literal["mapped", "harmless", "refused"]
SECTIONS = ("name", "model", "data", "method", "adapter", "train", "scale", "track", "storage")


@dataclass(frozen=True)
class Fate:
    """What becomes of one key of the source. `text`: the keys here, or the reason. `look`: a person should read it,
    because what the source means depends on something that its file does not say."""

    key: str
    value: Any
    kind: Kind
    text: str
    look: bool = False


@dataclass(frozen=True)
class Asked:
    """What is said beside the file: how many GPUs the source ran on, the subcommand of `trl`, LLaMA-Factory's
    `dataset_info.json`. None is not said."""

    gpus: int | None = None
    method: str | None = None
    dataset_info: Path | None = None


@dataclass
class Conversion:
    """An experiment in the making. `source` is the configuration, `folder` where its file stands."""

    tool: str
    source: Mapping[str, Any]
    folder: Path
    asked: Asked = field(default_factory=Asked)
    tree: dict[str, Any] = field(default_factory=dict)
    fates: list[Fate] = field(default_factory=list)
    comments: dict[str, list[str]] = field(default_factory=dict)  # dotted path -> where its value comes from
    one_row: dict[str, int] = field(default_factory=dict)  # keys by which several GPUs compute the same rows
    gpus_a_row: int = 1  # whose place one worker takes

    def get(self, key: str, otherwise: Any = None) -> Any:
        """The value of a key of the source; `otherwise` where it is not there, or null."""
        value = self.source.get(key)
        return otherwise if value is None else value

    def at(self, path: str) -> Any:
        """The value that the experiment has at a dotted path; None where it has none."""
        value: Any = self.tree
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def put(self, path: str, value: Any, because: str) -> None:
        """Sets a key of the experiment; `because` is the comment behind it."""
        set_dotted(self.tree, path, value)
        if because not in (said := self.comments.setdefault(path, [])):
            said.append(because)

    def default(self, path: str, value: Any) -> None:
        """Sets a key that the source leaves to its tool, unless something has set it."""
        if self.at(path) is None:
            self.put(path, value, f"{self.tool}'s default")

    def map(self, key: str, settings: Mapping[str, Any], note: str = "", look: bool = False) -> None:
        """The key becomes these keys of the experiment. `note` says what is different, after a colon."""
        for path, value in settings.items():
            self.put(path, value, key)
        told = ", ".join(settings) or "what stands there"
        self._tell(key, "mapped", f"{told}: {note}" if note else told, look)

    def harmless(self, key: str, why: str, look: bool = False) -> None:
        """The key may go: nothing that is trained changes."""
        self._tell(key, "harmless", why, look)

    def refuse(self, key: str, why: str) -> None:
        """The key is not obeyed: `why` says the reason and what to do."""
        self._tell(key, "refused", why, False)

    def _tell(self, key: str, kind: Kind, text: str, look: bool) -> None:
        self.fates.append(Fate(key, _at(self.source, key), kind, text, look))

    @property
    def refused(self) -> list[Fate]:
        """The keys that are not obeyed."""
        return [fate for fate in self.fates if fate.kind == "refused"]

    @property
    def gpus(self) -> int:
        """How many GPUs the source trained on: those that were asked for, or one."""
        return self.asked.gpus or 1


Function = Callable[[Conversion, str, Any], None]  # of a key and its value, which is not null


def _at(source: Any, key: str) -> Any:
    """The value of a key, or of `a.b` inside a section."""
    if isinstance(source, Mapping) and key in source:
        return source[key]
    first, _, rest = key.partition(".")
    return _at(source[first], rest) if rest and isinstance(source, Mapping) and first in source else None
