"""Mutation score: small faults are put into a module one at a time; tests that stay green do not hold it.

    .venv/bin/python tests/fuzz/mutate.py [TARGET …] [--limit N] [--bar 90]

A fault is another comparison, `and` for `or`, a condition turned round, a number one larger, True for False, a statement left out. Each runs
in a forked process with the tests of its row, for a bounded time. Nothing on disk is changed. Survivors are printed with their line; some
change nothing that anybody could see, which is why the bar is below 100. A new target is a row of TARGETS.
"""

from __future__ import annotations

import argparse
import ast
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


@dataclass(frozen=True)
class Target:
    """A module and the words for pytest that are to find faults in it."""

    module: str
    tests: tuple[str, ...]

    @property
    def path(self) -> Path:
        return ROOT / (self.module.replace(".", "/") + ".py")


TARGETS = {
    "guard": Target(
        "vsrv.http.guard",
        (
            "tests/http/test_guard_bounds.py",
            "tests/http/test_request_table.py",
            "tests/http/test_guard_fuzz.py",
            "-k",
            "without_io or guard_fuzz or guard_bounds",
        ),
    ),
    "auth": Target("vsrv.api.auth", ("tests/unit/test_auth.py",)),
    "limits": Target("vsrv.api.limits", ("tests/unit/test_limits.py",)),
    "keyfile": Target("vsrv.keyfile", ("tests/unit/test_keyfile.py",)),
}
_OTHER = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv,
}  # fmt: skip
Fault = tuple[str, Callable[[], ast.AST]]


class Faults(ast.NodeTransformer):
    """Counts the possible faults, and makes the one with the number `wanted`."""

    def __init__(self, wanted: int = -1) -> None:
        self.wanted, self.count, self.made = wanted, 0, ""

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
            return node  # texts for people
        self._without_declarations(node)
        for text, changed in possible(node):
            self.count += 1
            if self.count - 1 == self.wanted:
                self.made = f"{getattr(node, 'lineno', 0)}: {text}"
                return ast.copy_location(changed(), node)
        return self.generic_visit(node)

    def _without_declarations(self, node: ast.AST) -> None:
        """Annotations, decorators and docstrings are not what is looked at."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
            node.decorator_list = [d for d in node.decorator_list if isinstance(d, ast.Name)]
        elif isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call):
                    decorator.keywords = []  # frozen and slots are for the reader
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant("int")


def possible(node: ast.AST) -> Iterator[Fault]:
    """What may be wrong at this node."""
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            other = _OTHER.get(type(operator))
            if other is not None:
                ops = [*node.ops[:index], other(), *node.ops[index + 1 :]]
                yield (
                    f"{type(operator).__name__} is {other.__name__}",
                    lambda ops=ops: ast.Compare(node.left, ops, node.comparators),
                )
    elif isinstance(node, ast.BoolOp):
        other = _OTHER[type(node.op)]
        yield f"{type(node.op).__name__} is {other.__name__}", lambda: ast.BoolOp(other(), node.values)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OTHER:
        other = _OTHER[type(node.op)]
        yield (
            f"{type(node.op).__name__} is {other.__name__}",
            lambda: ast.BinOp(node.left, other(), node.right),
        )
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not is left out", lambda: node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"{node.value} is {not node.value}", lambda: ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield f"{node.value} is {node.value + 1}", lambda: ast.Constant(node.value + 1)
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        if not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp):
            turned = ast.UnaryOp(ast.Not(), node.test)
            yield (
                "the condition is turned round",
                lambda: type(node)(**{**dict(ast.iter_fields(node)), "test": turned}),
            )
    elif isinstance(node, ast.Raise | ast.AugAssign | ast.Continue | ast.Break) or (
        isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
    ):
        yield f"{type(node).__name__} is left out", ast.Pass


class _Planted(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module with its fault to whoever imports it."""

    def __init__(self, target: Target, tree: ast.Module) -> None:
        self._target, self._tree = target, tree

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._target.module:
            return None
        return importlib.util.spec_from_file_location(name, self._target.path, loader=self)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._tree, str(self._target.path), "exec"), module.__dict__)


def survives(target: Target, tree: ast.Module, limit_s: int) -> bool:
    """Whether all tests pass with this text of the module, in a process of their own."""
    child = os.fork()
    if child == 0:
        import pytest

        signal.alarm(limit_s)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        sys.meta_path.insert(0, _Planted(target, tree))
        os.chdir(ROOT)
        status = 3
        try:
            status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *target.tests]))
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def score(target: Target, limit: int | None, seed: int) -> tuple[int, list[str]]:
    """(number of faults that were tried, those that no test found)."""
    text = target.path.read_text()
    counter = Faults()
    counter.visit(ast.parse(text))
    numbers = list(range(counter.count))
    if limit is not None and limit < len(numbers):
        numbers = sorted(random.Random(seed).sample(numbers, limit))
    began = time.monotonic()
    if not survives(target, ast.parse(text), 600):
        raise SystemExit(f"the tests of {target.module} fail without any fault")
    limit_s = int(5 * (time.monotonic() - began)) + 10
    left: list[str] = []
    for number in numbers:
        faults = Faults(number)
        tree = ast.fix_missing_locations(faults.visit(ast.parse(text)))
        assert isinstance(tree, ast.Module)
        if survives(target, tree, limit_s):
            left.append(faults.made)
            print(f"  {target.path.relative_to(ROOT)}:{faults.made}", flush=True)
    return len(numbers), left


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--limit", type=int, help="at most so many faults of each, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bar", type=float, default=90.0, help="percent that must be found")
    options = parser.parse_args()
    if not set(options.targets) <= set(TARGETS):
        parser.error(f"targets are {', '.join(TARGETS)}")
    import h11
    import pytest

    assert h11 and pytest  # loaded before the forks
    is_low = False
    for name in options.targets or TARGETS:
        began = time.monotonic()
        tried, left = score(TARGETS[name], options.limit, options.seed)
        percent = 100 * (tried - len(left)) / max(1, tried)
        print(
            f"{name}: {tried - len(left)} of {tried} faults found, {percent:.1f} %, {time.monotonic() - began:.0f} s"
        )
        is_low = is_low or percent < options.bar
    return int(is_low)


if __name__ == "__main__":
    sys.exit(main())
