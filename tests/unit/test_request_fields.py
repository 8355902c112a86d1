"""The tables of request fields: every number and list has bounds, and what breaks one is a 400 that names the field (rule R9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from served import TEMPLATE, save_tokenizer

from vsrv.api.dialect_fields import MESSAGES, RESPONSES, TRANSLATED
from vsrv.api.fields import BOUNDED, Field, Fields
from vsrv.api.pooling_fields import ROWS as POOLING_ROWS
from vsrv.api.prepare import Preparer
from vsrv.api.request_fields import REQUESTS, ROWS
from vsrv.api.schema import ModelFacts, request_fields
from vsrv.errors import UserError
from vsrv.text.template import ChatTemplate
from vsrv.text.tokenizer import Tokenizer

FACTS = ModelFacts(("m",), 200, 300, 20, 2, tasks=("generate", "embed"))
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "x"}]},
    "completions": {"prompt": "x"},
    "tokenize": {"prompt": "x"},
    "detokenize": {"tokens": [1]},
    "embeddings": {"input": "x"},
    "rerank": {"query": "x", "documents": ["x"]},
    "score": {"text_1": "x", "text_2": "x"},
}
TABLES = {**REQUESTS, **TRANSLATED}
PAIRS = [(dialect, row) for dialect, rows in TABLES.items() for row in rows.values()]
IDS = [f"{dialect}-{row.name}" for dialect, row in PAIRS]


@pytest.fixture(scope="module")
def preparer(tmp_path_factory: pytest.TempPathFactory) -> Preparer:
    folder: Path = tmp_path_factory.mktemp("tok")
    save_tokenizer(folder)
    tokenizer = Tokenizer(folder)
    facts = ModelFacts(("m",), 200, tokenizer.vocab_size, 20, 2)
    return Preparer(tokenizer, ChatTemplate(TEMPLATE, {}), facts)


def read(dialect: str, name: str, value: Any) -> Any:
    """The value of one field; a whole body is read where that is no matter of a translation."""
    if dialect in TRANSLATED:
        return Fields({name: value}, TRANSLATED[dialect], FACTS)[name]
    return request_fields({**BODIES[dialect], name: value}, dialect, FACTS)[name]


def entries(row: Field, count: int) -> Any:
    """A value of the row's kind with so many entries or characters."""
    if row.kind == "text":
        return "x" * count
    if row.kind in ("texts", "list", "prompt"):
        return ["x"] * count
    if row.kind == "token_ids":
        return [1] * count
    return {str(i) if row.kind == "biases" else f"v{i}": 1 for i in range(count)}


def beyond(row: Field) -> list[Any]:
    """Values just outside of a row's bounds."""
    low, high = row.bounds(FACTS)
    if row.kind in ("integer", "number"):
        step = 1 if row.kind == "integer" else 0.001
        return [low - step, high + step, *([low] if row.above_low else [])]
    values = [entries(row, high + 1), *([entries(row, low - 1)] if low else [])]
    return values + ([["x" * (row.longest + 1)], [""]] if row.kind == "texts" else [])


@pytest.mark.parametrize(
    "row",
    [*ROWS, *POOLING_ROWS, *(row for rows in TRANSLATED.values() for row in rows.values())],
    ids=lambda row: row.name,
)
def test_every_row_says_what_it_is(row: Field) -> None:
    assert row.help
    if row.kind in BOUNDED:
        low, high = row.bounds(FACTS)
        assert low is not None and high is not None and low < high < 2**64
    if row.kind == "texts":
        assert 0 < row.longest <= 1024
    if row.kind == "choice":
        assert row.choices


@pytest.mark.parametrize(("dialect", "row"), PAIRS, ids=IDS)
def test_what_breaks_a_bound_is_refused_by_name(dialect: str, row: Field) -> None:
    if row.kind not in BOUNDED or row.name == "model":  # an unknown model is 404, however long its name
        return
    for value in beyond(row):
        with pytest.raises(UserError) as refusal:
            read(dialect, row.name, value)
        assert (refusal.value.status, refusal.value.code) == (400, "invalid_value"), value
        assert refusal.value.param == row.name


@pytest.mark.parametrize(("dialect", "row"), PAIRS, ids=IDS)
def test_a_value_of_another_kind_is_refused_by_name_and_null_is_absent(dialect: str, row: Field) -> None:
    assert read(dialect, row.name, None) == row.default
    for value in ([[{}]], {"a b": {}}, "\x00", 0.5):
        if row.kind == "any" or (row.kind, type(value)) in {("number", float), ("text", str), ("texts", str)}:
            continue
        if (row.kind, type(value)) in {("list", list), ("object", dict)} or (row.kind, value) == (
            "prompt",
            "\x00",
        ):
            continue
        with pytest.raises(UserError) as refusal:
            read(dialect, row.name, value)
        code = "unsupported_parameter" if row.kind == "refused" else "invalid_value"
        assert (refusal.value.status, refusal.value.code, refusal.value.param) == (400, code, row.name)


@pytest.mark.parametrize("dialect", [name for name in BODIES if name != "detokenize"])
def test_the_bodies_of_this_file_are_good_ones(preparer: Preparer, dialect: str) -> None:
    assert preparer.prepare(dialect, orjson.dumps(BODIES[dialect])).prompts[0]


def test_what_is_translated_takes_no_more_tools_than_chat_does() -> None:
    """Else a table would promise what chat refuses afterwards."""
    tables = [TRANSLATED[dialect] for dialect in (MESSAGES, RESPONSES)]
    assert {rows["tools"].high for rows in tables} == {REQUESTS["chat"]["tools"].high}
