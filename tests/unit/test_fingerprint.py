"""system_fingerprint: the same after a restart, another when something changes that shapes answers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import vsrv.demo
from vsrv import model_facts
from vsrv.config import resolve

DEMO = Path(vsrv.demo.__file__).parent


def fingerprint(folder: Path, **options: Any) -> str:
    given = {name.replace("_", "-"): value for name, value in options.items()}
    return model_facts.fingerprint(resolve({"model": str(folder), **given}, {}), folder)


def test_it_is_the_same_for_a_copy_of_the_model_and_what_does_not_shape_answers(tmp_path: Path) -> None:
    names = (
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    )
    for name in names:
        shutil.copy(DEMO / name, tmp_path / name)
    first = fingerprint(DEMO)
    assert first.startswith("vsrv-") and fingerprint(DEMO) == fingerprint(tmp_path) == first
    assert fingerprint(DEMO, port="1234", max_num_seqs="3", served_model_name="x", threads="1") == first


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dtype", "float32"),
        ("seed", "7"),
        ("override_generation_config", '{"temperature": 0.3}'),
        ("chat_template", "{{ messages }}"),
    ],
)
def test_it_changes_with_what_shapes_answers(name: str, value: str) -> None:
    assert fingerprint(DEMO, **{name: value}) != fingerprint(DEMO)


def test_it_changes_with_the_model(tmp_path: Path) -> None:
    shutil.copy(DEMO / "config.json", tmp_path)
    bare = fingerprint(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.5}')
    assert fingerprint(tmp_path) != bare
