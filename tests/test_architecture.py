"""The structure of vsrv, held by reading its source: floors, outside packages, cycles, forbidden calls, names, documents.

The picture itself is in CONTRIBUTING.md. Nothing of vsrv is imported here, so a broken module still gets its verdict.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "vsrv"

# A file imports from lower floors of its own tower and from its own folder. `None` as a tower stands in both.
FLOORS: dict[str, tuple[int, str | None]] = {
    "vsrv": (0, None),
    "vsrv.errors": (0, None),
    "vsrv.messages": (0, None),
    "vsrv.frames": (1, None),
    "vsrv.options": (0, None),
    "vsrv.options_vllm": (0, None),
    "vsrv.archive": (1, None),
    "vsrv.boot": (1, None),
    "vsrv.requirements": (1, None),
    "vsrv.environments": (2, None),
    "vsrv.shared_environment": (3, None),
    "vsrv.setup": (4, None),
    "vsrv.files": (0, None),
    "vsrv.host": (0, None),
    "vsrv.config": (1, None),
    "vsrv.option_values": (1, None),
    "vsrv.config_text": (1, None),
    "vsrv.log": (1, None),
    "vsrv.systemd": (1, None),
    "vsrv.stats_line": (1, None),
    "vsrv.keyfile": (1, None),
    "vsrv.metrics": (1, None),
    "vsrv.hub": (1, None),
    "vsrv.demo": (2, None),
    "vsrv.http": (2, "front"),
    "vsrv.text": (2, "front"),
    "vsrv.engine_client": (3, "front"),
    "vsrv.supervisor": (4, "front"),
    "vsrv.api": (4, "front"),
    "vsrv.prepare_client": (6, "front"),
    "vsrv.prepare_worker": (5, "front"),
    "vsrv.kernels": (2, "engine"),
    "vsrv.models": (3, "engine"),
    "vsrv.engine": (4, "engine"),
    "vsrv.listening": (3, "front"),
    "vsrv.model_facts": (5, "front"),
    "vsrv.assembly": (7, "front"),
    "vsrv.serve": (8, "front"),
    "vsrv.certificates": (1, None),
    "vsrv.client": (3, None),
    "vsrv.bench": (7, "front"),
    "vsrv.keys": (7, "front"),
    "vsrv.commands": (1, None),
    "vsrv.flags": (2, None),
    "vsrv.docs": (3, None),
    "vsrv.parsers": (3, None),
    "vsrv.check": (9, None),
    "vsrv.cli": (10, None),
    "vsrv.__main__": (11, None),
}
SAME_FLOOR = {("vsrv.demo", "vsrv.demo")}
OUTSIDE: dict[str, set[str]] = {
    "vsrv": set(),
    "vsrv.hub": {"huggingface_hub"},
    "vsrv.config": {"yaml"},
    "vsrv.metrics": {"prometheus_client"},
    "vsrv.http": {"h11", "cryptography"},
    "vsrv.certificates": {"cryptography"},
    "vsrv.text": {"tokenizers", "jinja2", "llguidance"},
    "vsrv.api": {"orjson"},
    "vsrv.prepare_client": {"orjson"},
    "vsrv.prepare_worker": {"orjson"},
    "vsrv.bench": {"orjson"},
    "vsrv.kernels": {"numpy", "numba", "llvmlite", "cuda"},
    "vsrv.models": {"torch", "safetensors"},
    "vsrv.check": {"torch"},
    "vsrv.engine": {"torch", "numpy", "llguidance"},
    "vsrv.demo": {"torch", "safetensors", "tokenizers"},
}
FORBIDDEN_IMPORTS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "multiprocessing"}
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {
    ("torch", "load"),
    ("yaml", "load"),
    ("os", "system"),
    ("jinja2", "Environment"),
    ("jinja2", "Template"),
}
FAMILIES = re.compile(r"llama|qwen|mistral|gemma|phi3|smollm|\bbert|roberta", re.IGNORECASE)


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The row of FLOORS that a module belongs to: itself or the folder that it lies in."""
    while module not in FLOORS:
        module = module.rpartition(".")[0]
        assert module, "module without a row in FLOORS"
    return module


def imports(path: Path) -> list[tuple[str, int]]:
    """Every module named by an import anywhere in the file, functions included, typing-only blocks too."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            submodules = [f"{module}.{alias.name}" for alias in node.names]
            files = [
                s
                for s in submodules
                if (ROOT / (s.replace(".", "/") + ".py")).exists() or (ROOT / s.replace(".", "/")).is_dir()
            ]
            found += [(f, node.lineno) for f in files] or [(module, node.lineno)]
    return found


def test_every_file_is_on_a_floor() -> None:
    for path in sources():
        module = module_name(path)
        row = room(module)
        assert row != "vsrv" or module == "vsrv", f"{module} has no row in FLOORS"


def test_imports_go_down_only() -> None:
    breaches: list[str] = []
    for path in sources():
        here = room(module_name(path))
        floor, tower = FLOORS[here]
        for target, line in imports(path):
            if target.split(".")[0] != "vsrv":
                continue
            there = room(target)
            if there == here and here not in {"vsrv"}:
                continue
            other_floor, other_tower = FLOORS[there]
            crosses = tower is not None and other_tower is not None and tower != other_tower
            if crosses or (other_floor >= floor and there != "vsrv" and not (floor == other_floor <= 1)):
                breaches.append(f"{path.relative_to(ROOT)}:{line} imports {target}")
    assert not breaches, "\n".join(breaches)


def test_outside_packages() -> None:
    breaches: list[str] = []
    for path in sources():
        here = room(module_name(path))
        for target, line in imports(path):
            top = target.split(".")[0]
            if top == "vsrv" or top in sys.stdlib_module_names:
                continue
            if top not in OUTSIDE.get(here, set()):
                breaches.append(f"{path.relative_to(ROOT)}:{line} imports {target}")
    assert not breaches, "\n".join(breaches)


def test_no_import_cycle() -> None:
    graph = {module_name(p): {t for t, _ in imports(p) if t.split(".")[0] == "vsrv"} for p in sources()}
    state: dict[str, int] = {}

    def visit(module: str, trail: list[str]) -> None:
        if state.get(module) == 2 or module not in graph:
            return
        assert state.get(module) != 1, " → ".join([*trail, module])
        state[module] = 1
        for target in sorted(graph[module] - {module}):
            visit(target, [*trail, module])
        state[module] = 2

    for module in graph:
        visit(module, [])


def test_forbidden_calls() -> None:
    breaches: list[str] = []
    for path in sources():
        where = path.relative_to(ROOT)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Global):
                breaches.append(f"{where}:{node.lineno} global")
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in FORBIDDEN_NAMES
            ):
                breaches.append(f"{where}:{node.lineno} {node.func.id}()")
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if (node.value.id, node.attr) in FORBIDDEN_ATTRIBUTES:
                    breaches.append(f"{where}:{node.lineno} {node.value.id}.{node.attr}")
            if (
                isinstance(node, ast.ImportFrom)
                and node.module == "jinja2"
                and {a.name for a in node.names} & {"Environment", "Template"}
            ):
                breaches.append(f"{where}:{node.lineno} plain jinja2 environment")
            if (
                isinstance(node, ast.ExceptHandler)
                and len(node.body) == 1
                and isinstance(node.body[0], ast.Pass)
            ):
                if node.type is None or (
                    isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
                ):
                    breaches.append(f"{where}:{node.lineno} swallows every exception")
        breaches += [
            f"{where}:{line} imports {t}" for t, line in imports(path) if t.split(".")[0] in FORBIDDEN_IMPORTS
        ]
    assert not breaches, "\n".join(breaches)


@pytest.mark.parametrize(
    "name", ["decoder.py", "encoder.py", "loading.py", "pooling.py", "spec.py", "weights.py"]
)
def test_spine_and_parts_know_no_family(name: str) -> None:
    tree = ast.parse((PACKAGE / "models" / name).read_text())
    names = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name)]
    names += [n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
    docstrings = {
        id(n.body[0].value)
        for n in ast.walk(tree)
        if isinstance(n, ast.Module | ast.FunctionDef | ast.ClassDef)
        and n.body
        and isinstance(n.body[0], ast.Expr)
    }
    names += [
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docstrings
    ]
    # "llama3" is the name of a rope scaling in config.json, whatever family uses it
    assert not [n for n in names if FAMILIES.search(n.replace("llama3", ""))]


def test_every_route_has_an_auth_class() -> None:
    """`Route(...)` without an explicit auth class does not exist anywhere (rule R3)."""
    bare: list[str] = []
    for path in (PACKAGE / "api").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Route":
                text = ast.unparse(node)
                if "AuthClass." not in text:
                    bare.append(f"{path.relative_to(ROOT)}:{node.lineno} {text}")
    assert not bare, "\n".join(bare)


def test_readme_commands_are_what_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    ci = (ROOT / ".ci" / "run").read_text()
    command = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest -q"
    assert command in readme
    assert command.replace("pip install -e", "pip install -q -e") in ci
    assert "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/vsrv serve" in readme


def test_top_level_holds_nothing_else() -> None:
    allowed = {
        "vsrv",
        "build_zipapp.py",
        "tests",
        "man",
        "systemd",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        ".ci",
        ".git",
        ".gitignore",
    }
    made = {
        ".venv",
        "dist",
        "build",
        "vsrv.egg-info",
        ".hypothesis",
        "__pycache__",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
    }
    assert {p.name for p in ROOT.iterdir()} - made <= allowed
