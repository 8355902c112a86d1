"""/openapi.json: every route, the keys that it asks for, and bounds that are those of the parser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from served import Setup, Site

from vsrv.api.dialect_fields import TRANSLATED
from vsrv.api.fields import Fields
from vsrv.api.openapi import OPERATIONS, field_schema, request_schema
from vsrv.api.request_fields import REQUESTS
from vsrv.api.schema import ModelFacts, request_fields
from vsrv.api.translators import TRANSLATORS
from vsrv.errors import UserError

FACTS = ModelFacts(("m",), 200, 300, 20, 2)


def document(site: Site, headers: dict[str, str] | None = None) -> dict[str, Any]:
    status, answered, body = site.request("GET", "/openapi.json", None, headers)
    assert (status, answered["content-type"]) == (200, "application/json")
    return json.loads(body)


def test_every_route_is_told_of(folder: Path) -> None:
    site = Site(folder)
    try:
        told = document(site)
        assert told["openapi"].startswith("3.1.")
        for route in site.app.routes:
            assert route.pattern in OPERATIONS, f"{route.pattern} has no row in OPERATIONS"
            path = told["paths"][route.pattern.replace(":path}", "}")]
            assert {method.lower() for method in route.methods} <= set(path)
        assert not [op for path in told["paths"].values() for op in path.values() if "security" in op]
        names = [op["operationId"] for path in told["paths"].values() for op in path.values()]
        assert len(set(names)) == len(names)
    finally:
        site.stop()


def test_keys_are_told_of_where_they_are_needed(folder: Path) -> None:
    site = Site(folder, Setup(keys=("secret",)))
    try:
        assert site.request("GET", "/openapi.json")[0] == 401
        told = document(site, {"authorization": "Bearer secret"})
        for pattern, path in told["paths"].items():
            for method, operation in path.items():
                status = site.request(method.upper(), re.sub(r"\{\w+\}", "m", pattern), None)[0]
                assert ("security" in operation) == (status == 401), (method, pattern)
    finally:
        site.stop()


def test_references_lead_somewhere(folder: Path) -> None:
    site = Site(folder)
    try:
        told = document(site)
    finally:
        site.stop()
    text = json.dumps(told)
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.split('"')[0] in told["components"]["schemas"]
    for schema in told["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def bodies() -> list[Any]:
    """(dialect, body) with single fields at and around edges."""
    values: list[Any] = [
        None, True, False, 0, 1, -1, 2, 3, 1e-5, 0.5, 2.5, -2.5, 16, 17, 20, 21, 64, 65, 128, 129, 2**31, 2**63, "", "x", "m", "left", "low", "x" * 129,
        "x" * 257, [], {}, [1], [300], [-1], ["x"], ["x"] * 17, [1] * 121, ["x" * 257], [""], {"1": 1}, {"x": 1}, {"x": {}}, {"1": "1"}, {"tools": 1}, [{}],
    ]  # fmt: skip
    base = {
        "chat": {"messages": [{"role": "user", "content": "x"}]},
        "completions": {"prompt": "x"},
        "tokenize": {"prompt": "x"},
        "detokenize": {"tokens": [1]},
        "messages": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1},
        "count_tokens": {"messages": [{"role": "user", "content": "x"}]},
        "responses": {"input": "x"},
        "input_tokens": {"input": "x"},
        "embeddings": {"input": "x"},
        "rerank": {"query": "x", "documents": ["x"]},
        "score": {"text_1": "x", "text_2": "x"},
    }
    return [
        (dialect, {**base[dialect], name: value}, name)
        for dialect, rows in {**REQUESTS, **TRANSLATED}.items()
        for name, row in rows.items()
        for value in values
        if row.kind != "list" and row.schema is None  # their entries are read elsewhere
    ]


def _fields(dialect: str) -> Callable[[dict[str, Any], ModelFacts], Fields]:
    return lambda body, facts: request_fields(body, dialect, facts)


def test_the_schema_of_a_field_allows_what_its_reader_takes() -> None:
    for dialect, body, name in bodies():
        row = {**REQUESTS, **TRANSLATED}[dialect][name]
        if dialect in TRANSLATED and name == "model":
            continue  # looked up when the body has been translated
        valid = jsonschema.Draft202012Validator(field_schema(row, FACTS)).is_valid(body[name])
        try:
            read = TRANSLATORS[dialect].fields if dialect in TRANSLATORS else _fields(dialect)
            read(body, FACTS)[name]
            taken = body[name] is not None or not row.required
        except UserError:
            taken = False
        assert valid == taken, (dialect, name, body[name])


@pytest.mark.parametrize(
    ("dialect", "body", "valid"),
    [
        ("chat", {"stream_options": {}}, False),
        ("chat", {"stream_options": {}, "stream": True}, True),
        ("chat", {"stream_options": None}, True),
        ("chat", {"stream": True, "prompt_logprobs": 1}, False),
        ("chat", {"stream": True, "prompt_logprobs": 0}, True),
        ("chat", {"n": 2, "temperature": 0}, False),
        ("chat", {"n": 2}, True),
        ("chat", {"n": 1, "temperature": 0}, True),
        ("chat", {"top_logprobs": 2}, False),
        ("chat", {"top_logprobs": 2, "logprobs": True}, True),
        ("tokenize", {}, False),
        ("tokenize", {"prompt": ""}, True),
        ("completions", {}, False),
        ("score", {"queries": "a"}, False),
        ("score", {"queries": "a", "items": None}, False),
        ("score", {"queries": "a", "items": ["b"]}, True),
    ],
)
def test_rules_between_fields(dialect: str, body: dict[str, Any], valid: bool) -> None:
    if dialect == "chat":
        body = {"messages": [{"role": "user", "content": "x"}], **body}
    schema = request_schema(dialect, FACTS)
    assert jsonschema.Draft202012Validator(schema).is_valid(body) is valid
