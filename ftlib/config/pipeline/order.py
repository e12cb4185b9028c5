"""The order of steps that need each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftlib.errors import ConfigError, nearest


def ordered(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """The names, each after all that it needs, otherwise in the order in which they stand. Raises ConfigError for a
    need that is no step, and for steps that need each other in a circle."""
    found: list[str] = []
    for name in needs:
        _visit(name, needs, [], found)
    return found


def after(name: str, needs: Mapping[str, Sequence[str]]) -> set[str]:
    """The step itself, and all that need it, also through others."""
    found = {name}
    for other in ordered(needs):
        if found & set(needs[other]):
            found.add(other)
    return found


def _visit(name: str, needs: Mapping[str, Sequence[str]], on_the_way: list[str], found: list[str]) -> None:
    if name in found:
        return
    if name in on_the_way:
        circle = [*on_the_way[on_the_way.index(name) :], name]
        raise ConfigError(f"steps need each other in a circle: {' needs '.join(circle)}.")
    for need in needs[name]:
        if need not in needs:
            raise ConfigError(f"steps.{name}.needs: there is no step '{need}'.{nearest(need, needs)}")
        _visit(need, needs, [*on_the_way, name], found)
    found.append(name)
