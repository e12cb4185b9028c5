"""`when:` of a pipeline: comparisons of figures with numbers, joined by and, or and parentheses.

    drift > 0.2 or new_rows > 500 and age >= 1

Nothing is run: the text is parsed as an expression of Python's, and only these shapes of it are taken.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ftlib.errors import nearest

FIGURES = {
    "drift": "how far the traffic is from the training data: above 0.2, the monitor says that it drifted",
    "new_rows": "sampled requests since the data was last taken",
    "age": "days since the data was last taken",
}
SIGNS: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
LONGEST = 500  # characters
SHAPES = "comparisons of figures with numbers, joined by and, or and parentheses"

Figures = Mapping[str, float | None]


@dataclass(frozen=True)
class Condition:
    """A condition on figures."""

    text: str
    tree: ast.expr

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Raises ValueError, with a few words, for what is no condition, and for a figure that there is not."""
        if len(text) > LONGEST:
            raise ValueError(f"it has more than {LONGEST} characters")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise ValueError(f"'{text}' cannot be read: write {SHAPES}") from None
        if not isinstance(tree, ast.BoolOp | ast.Compare):
            raise ValueError(f"'{text}' says neither yes nor no: write {SHAPES}")
        _check(tree)
        return cls(text, tree)

    @property
    def names(self) -> set[str]:
        """The figures that it looks at."""
        return {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}

    def holds(self, figures: Figures) -> bool:
        """Whether it is true. A comparison with a figure that is not known (None) is false."""
        return _holds(self.tree, figures)


def _check(node: ast.expr) -> None:
    match node:
        case ast.BoolOp(values=values):
            parts = values
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(sign) in SIGNS for sign in ops):
            for operand in (left, *others):
                _check_operand(operand)
            parts = []
        case _:
            raise ValueError(f"'{ast.unparse(node)}' is none of {SHAPES}")
    for part in parts:
        _check(part)


def _check_operand(node: ast.expr) -> None:
    match node:
        case ast.Name(id=name):
            if name not in FIGURES:
                told, near = f"there is no figure '{name}': there is {', '.join(FIGURES)}", nearest(name, FIGURES)
                raise ValueError(f"{told}.{near}" if near else told)
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and math.isfinite(value):
            pass
        case _:
            raise ValueError(f"'{ast.unparse(node)}' is neither a figure ({', '.join(FIGURES)}) nor a number")


def _holds(node: ast.expr, figures: Figures) -> bool:
    if isinstance(node, ast.BoolOp):
        holding = (_holds(part, figures) for part in node.values)
        return all(holding) if isinstance(node.op, ast.And) else any(holding)
    assert isinstance(node, ast.Compare)
    return all(_compared(node, figures))


def _compared(node: ast.Compare, figures: Figures) -> Iterator[bool]:
    values = [_value(operand, figures) for operand in (node.left, *node.comparators)]
    for sign, left, right in zip(node.ops, values, values[1:], strict=False):
        yield left is not None and right is not None and SIGNS[type(sign)](left, right)


def _value(node: ast.expr, figures: Figures) -> float | None:
    return figures.get(node.id) if isinstance(node, ast.Name) else float(ast.literal_eval(node))
