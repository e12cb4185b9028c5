"""Private names of other libraries are used in the files of a table, and nowhere else.

A private name begins with one underscore. It may be another one in the next version of its library, so that whoever
raises a version reads these files again.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import ROOT

# The file, the library, and the version whose source was read. A comment says why the name is not in one file with the
# library's others.
TABLE = {
    "ftlib/cluster/ray_private.py": ("ray", "2.60"),
    "ftlib/sweeps/tune_private.py": ("ray", "2.60"),
    "ftlib/sweeps/optuna_private.py": ("optuna", "5.0"),
    "ftlib/methods/trl_private.py": ("trl", "1.16"),
    "ftlib/models/adapters/own_config.py": ("peft", "0.21"),  # its enumeration of types is closed
    # A tuner of PEFT's is written by overriding such methods.
    "ftlib/models/adapters/bottleneck.py": ("peft", "0.21"),
    "ftlib/models/adapters/fusion.py": ("peft", "0.21"),
    "ftlib/models/adapters/state.py": ("peft", "0.21"),  # one name, of one object that is changed there
    "ftlib/models/strategies.py": ("accelerate", "1.15"),  # two names in one function
    "ftlib/methods/teacher.py": ("transformers", "5.23"),  # the commit of a config; the state of ZeRO-3
    "ftlib/pack/heads.py": ("transformers", "5.23"),  # how a model draws a layer that its files lack
    "ftlib/models/gguf.py": ("transformers", "5.23"),  # a tokenizer's inner one, which is replaced
    "serve/engine/batch.py": ("transformers", "5.23"),  # which attention a config names
    "ftlib/data/read.py": ("datasets", "5.2"),  # a data set's fingerprint, which has no other name
    "ftlib/models/onednn.py": ("torch", "2.13"),  # oneDNN's products, which torch has for its compiler
    # The counts of n-grams that sacrebleu's own significance tests add up.
    "ftlib/evaluation/corpus_metrics.py": ("sacrebleu", "2.6"),
    "ftlib/report/wandb_dashboard.py": ("wandb-workspaces", "0.4"),  # a dashboard as JSON, without the network
    # Python's own: a process that ends at once.
    "ftlib/cli/__init__.py": ("python", ""),
    "ftlib/remote/entrypoint.py": ("python", ""),
    "ftlib/sweeps/pack_host.py": ("python", ""),
}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_super(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def is_own(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


class File:
    """What a file defines, and what it reads."""

    def __init__(self, source: str) -> None:
        self.nodes = list(ast.walk(ast.parse(source)))
        attributes = [node for node in self.nodes if isinstance(node, ast.Attribute)]
        names = [node for node in self.nodes if isinstance(node, ast.Name)]
        declared = {id(node.target) for node in self.nodes if isinstance(node, ast.AnnAssign) and node.value is None}
        self.read = {node.attr for node in attributes if isinstance(node.ctx, ast.Load)}
        self.read |= {node.id for node in names if isinstance(node.ctx, ast.Load)}
        self.read |= {str(node.value) for node in self.nodes if isinstance(node, ast.Constant)}
        self.defined = {node.name for node in self.nodes if isinstance(node, FUNCTIONS | ast.ClassDef)}
        self.defined |= {node.id for node in names if isinstance(node.ctx, ast.Store) and id(node) not in declared}
        self.defined |= {node.attr for node in attributes if isinstance(node.ctx, ast.Store) and is_own(node.value)}

    def foreign(self) -> Iterator[tuple[int, str]]:
        """The line and the text of each private name that another library defines."""
        for node in self.nodes:
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                unread = is_own(node.value) and node.attr not in self.read  # set here, for the library to read
                if node.attr not in self.defined or is_super(node.value) or unread:
                    yield node.lineno, ast.unparse(node)
            elif isinstance(node, ast.ImportFrom):
                path = (node.module or "").split(".") + [name.name for name in node.names]
                yield from ((node.lineno, f"import of {name}") for name in path if is_private(name))
            elif isinstance(node, ast.ClassDef) and node.bases:
                yield from ((line, name) for line, name in members(node) if name not in self.read)


def members(of: ast.ClassDef) -> Iterator[tuple[int, str]]:
    """The private methods and attributes of a class. Those that no code of the file reads, the base class calls.
    A decorator may register a method, as pydantic's do."""
    for node in of.body:
        if isinstance(node, FUNCTIONS) and is_private(node.name) and not node.decorator_list:
            yield node.lineno, node.name
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Name) and is_private(target.id):
                yield node.lineno, target.id


def sources() -> Iterator[Path]:
    for room in ("ftlib", "serve"):
        yield from sorted((ROOT / room).rglob("*.py"))


def test_private_names_stand_in_the_files_of_the_table() -> None:
    found = {str(path.relative_to(ROOT)): list(File(path.read_text()).foreign()) for path in sources()}
    others = [f"{file}:{line} {name}" for file, names in found.items() if file not in TABLE for line, name in names]
    assert others == []
    assert {file for file, names in found.items() if names} == set(TABLE)


@pytest.mark.parametrize(("library", "read_at"), sorted({told for told in TABLE.values() if told[1]}))
def test_the_version_is_the_one_that_was_read(library: str, read_at: str) -> None:
    assert version(library).startswith(f"{read_at}."), (
        f"read the private names of {library} in tests/{Path(__file__).name}"
    )


@pytest.mark.parametrize(
    "source",
    [
        "import ray\nray._private.worker",
        "from ray._private import worker",
        "from ray import _raylet",
        "class A(B):\n    def _save(self): pass",
        "class A(B):\n    def _save(self):\n        return super()._save()",
        "class A(B):\n    _name = 'x'",
        "class A(B):\n    _metrics: dict\n    def f(self):\n        return self._metrics",
        "class A(B):\n    def f(self):\n        self._hash = 1",
    ],
)
def test_a_private_name_is_seen(source: str) -> None:
    assert list(File(source).foreign())


@pytest.mark.parametrize(
    "source",
    [
        "class A(B):\n    def _own(self): pass\n    def f(self):\n        return self._own()",
        "class A(B):\n    @model_validator\n    def _fits(self): pass",
        "def _own(): pass\n_own()",
        "class A(B):\n    def f(self):\n        self._own = 1\n    def g(self):\n        return self._own",
        "class A(B):\n    def _said(self): pass\n    def f(self):\n        return self.call_method('_said')",
        "x.__class__",
    ],
)
def test_an_own_name_is_none(source: str) -> None:
    assert not list(File(source).foreign())
