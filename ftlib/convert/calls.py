"""The calls in a Python script and their arguments, read from its text: nothing is run, imported or looked up."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

DEEP = 50  # how deep a value may be nested


class Unknown:
    """A value that only running the script could tell. `text` is the beginning of its code."""

    def __init__(self, node: ast.AST) -> None:
        self.text = ast.unparse(node)[:60] if isinstance(node, ast.expr) and not _deep(node) else "..."

    def __repr__(self) -> str:
        return self.text


def is_known(value: Any) -> bool:
    """Whether a value stands in the script, with all that is in it."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not isinstance(value, Unknown) and all(map(is_known, inner))


@dataclass(frozen=True)
class Call:
    """One call: `name` is its last part (`from_pretrained`), `of` what stands before it (`FastLanguageModel`)."""

    of: str
    name: str
    positional: tuple[Any, ...]
    named: dict[str, Any]


@dataclass(frozen=True)
class Script:
    """What is known of a script: its calls, in their order, and the pieces that are no Python."""

    calls: list[Call]
    unreadable: list[str]


def read(pieces: Sequence[str]) -> Script:
    """The calls of a script's pieces, with the values that stand there, or that a name was set to before."""
    values: dict[str, Any] = {}
    calls: list[Call] = []
    unreadable: list[str] = []
    for number, piece in enumerate(pieces, start=1):
        try:
            tree = ast.parse(piece)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            unreadable.append(f"piece {number}: {type(error).__name__}")
            continue
        for statement in tree.body:
            calls += _of_statement(statement, values)
    return Script(calls, unreadable)


def _of_statement(statement: ast.stmt, values: dict[str, Any]) -> Iterator[Call]:
    """The calls of a statement, before its names get their values. What stands under `if False:` is not run."""
    if isinstance(statement, ast.If) and isinstance(statement.test, ast.Constant) and not statement.test.value:
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Call) and (named := _name(node.func)) is not None:
            positional = tuple(_value(one, values) for one in node.args)
            arguments = {one.arg: _value(one.value, values) for one in node.keywords if one.arg is not None}
            yield Call(*named, positional, arguments)
    if isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                values[target.id] = _value(statement.value, values)


def _name(node: ast.expr) -> tuple[str, str] | None:
    if isinstance(node, ast.Name):
        return "", node.id
    if isinstance(node, ast.Attribute):
        return (node.value.id if isinstance(node.value, ast.Name) else ""), node.attr
    return None


def _value(node: ast.expr, values: dict[str, Any], depth: int = 0) -> Any:
    """A value that stands in the code; Unknown for everything else."""
    if depth > DEEP:
        return Unknown(node)
    if isinstance(node, ast.Constant):
        plain = node.value is None or isinstance(node.value, str | int | float | bool)
        return node.value if plain else Unknown(node)
    if isinstance(node, ast.Name):
        return values.get(node.id, Unknown(node))
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(one, values, depth + 1) for one in node.elts]
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
        return dict(zip(keys, (_value(one, values, depth + 1) for one in node.values), strict=True))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _value(node.operand, values, depth + 1)
        return -inner if isinstance(inner, int | float) else Unknown(node)
    if isinstance(node, ast.BinOp) and type(node.op) in SUMS:
        first, second = (_value(one, values, depth + 1) for one in (node.left, node.right))
        return _sum(node, first, second)
    if isinstance(node, ast.Attribute) and _name(node) in TORCH_TYPES:
        return node.attr
    return Unknown(node)


def _sum(node: ast.BinOp, first: Any, second: Any) -> Any:
    """`lora_rank * 2`, of small numbers."""
    numbers = all(isinstance(one, int | float) and abs(one) < LARGEST for one in (first, second))
    if not numbers or (second == 0 and isinstance(node.op, ast.Div | ast.FloorDiv)):
        return Unknown(node)
    return SUMS[type(node.op)](first, second)


LARGEST = 1e9
SUMS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
TORCH_TYPES = {("torch", name) for name in ("bfloat16", "float16", "float32")}


def _deep(node: ast.AST, depth: int = 0) -> bool:
    """Whether code is nested too deep to be written out."""
    return depth > DEEP or any(_deep(child, depth + 1) for child in ast.iter_child_nodes(node))
