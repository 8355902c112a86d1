"""/openapi.json: the routes and the tables of request fields as an OpenAPI 3.1 document, with this server's own bounds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson

import vsrv
from vsrv.api.dialect_fields import COUNT_TOKENS, INPUT_TOKENS, MESSAGES, RESPONSES, TRANSLATED
from vsrv.api.fields import Field, Kind, Table
from vsrv.api.openapi_answers import ANSWERS
from vsrv.api.pooling_fields import EMBEDDINGS, RERANK, SCORE
from vsrv.api.request_fields import REQUESTS, RULES
from vsrv.api.schema import ModelFacts
from vsrv.http.route import AuthClass, Route

_TABLES: Mapping[str, Table] = {**REQUESTS, **TRANSLATED}
_ALWAYS = (400, 431, 503)  # what the HTTP layer itself may answer to any request
_WITH_KEY = (401, 403, 429)
_WITH_BODY = (404, 408, 413, 415, 500, 504)


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route's pattern alone does not say. `request` is a dialect of _TABLES, `answer` a schema of ANSWERS."""

    summary: str
    answer: str = ""
    request: str = ""
    media: str = "application/json"
    streams: bool = False


@dataclass(frozen=True, slots=True)
class Access:
    """Whether a key is asked for."""

    inference: bool
    metrics: bool


OPERATIONS: Mapping[str, Operation] = {
    "/livez": Operation("the process is alive", "Plain", media="text/plain"),
    "/readyz": Operation("the model is loaded and answers"),
    "/health": Operation("the same, under vLLM's name"),
    "/ping": Operation("the same, as SageMaker asks"),
    "/load": Operation("sequences that run or wait", "Load"),
    "/version": Operation("the version of vsrv", "Version"),
    "/metrics": Operation("Prometheus metrics", "Plain", media="text/plain"),
    "/openapi.json": Operation("this document", "Document"),
    "/v1/models": Operation("the served names", "ModelList"),
    "/v1/models/{model:path}": Operation("one served name", "Model"),
    "/tokenizer_info": Operation("tokenizer_config.json and the chat template", "TokenizerInfo"),
    "/tokenize": Operation("text or messages → token ids", "Tokens", "tokenize"),
    "/detokenize": Operation("token ids → text", "Text", "detokenize"),
    "/v1/chat/completions": Operation(
        "the next message of a conversation", "ChatCompletion", "chat", streams=True
    ),
    "/v1/completions": Operation("how a text goes on", "Completion", "completions", streams=True),
    "/v1/messages": Operation("the same in Anthropic's form", "Message", MESSAGES, streams=True),
    "/v1/messages/count_tokens": Operation("tokens of such a prompt", "TokenCount", COUNT_TOKENS),
    "/v1/responses": Operation(
        "the same in the form of OpenAI's responses", "Response", RESPONSES, streams=True
    ),
    "/v1/responses/input_tokens": Operation("tokens of such a prompt", "TokenCount", INPUT_TOKENS),
    "/v1/embeddings": Operation("texts → vectors, with an embedding model", "Embeddings", EMBEDDINGS),
    **dict.fromkeys(
        ("/v1/rerank", "/v2/rerank", "/rerank"),
        Operation(
            "the documents that fit a query best, with an embedding model or a cross-encoder",
            "Ranking",
            RERANK,
        ),
    ),
    **dict.fromkeys(
        ("/v1/score", "/score"),
        Operation("how well pairs of texts fit, with an embedding model or a cross-encoder", "Scores", SCORE),
    ),
    "/v1/responses/{response}": Operation("404: no response is kept"),
    "/v1/responses/{response}/input_items": Operation("404: no response is kept"),
    "/v1/responses/{response}/cancel": Operation("404: no response is kept"),
}


def document(routes: tuple[Route, ...], facts: ModelFacts, access: Access, root_path: str) -> bytes:
    """The document as JSON. `root_path` is a proxy's prefix, where there is one."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        entry = paths.setdefault(route.pattern.replace(":path}", "}"), {})
        for method in route.methods:
            entry[method.lower()] = _operation(route, method, facts, access)
    schemas: dict[str, Any] = dict(ANSWERS)
    for dialect in _TABLES:
        schemas[_request_name(dialect)] = request_schema(dialect, facts)
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "vsrv", "version": vsrv.__version__, "license": {"name": "Apache-2.0"}},
            "servers": [{"url": root_path or "/"}],
            "paths": paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                },
            },
        }
    )


def request_schema(dialect: str, facts: ModelFacts) -> dict[str, Any]:
    """JSON schema of a request body: the rows of its table and what has to hold between them."""
    rows = _TABLES[dialect]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: field_schema(row, facts) for name, row in rows.items()},
        "required": [name for name, row in rows.items() if row.required],
    }
    rules = [rule for rule in RULES if dialect in rule.dialects]
    if rules:
        schema["allOf"] = [rule.schema for rule in rules]
    return schema


def field_schema(row: Field, facts: ModelFacts) -> dict[str, Any]:
    """JSON schema of one field; null is taken as absent, except where the field is required."""
    schema: dict[str, Any] = {**_SCHEMAS[row.kind](row, facts), **(row.schema or {})}
    if row.name == "model":
        schema = {"type": "string"} if facts.any_name else {"enum": [*facts.served_names, ""]}
    if not row.required:
        schema = _or_null(schema)
    schema["description"] = row.help
    if row.default not in (None, (), ""):
        schema["default"] = row.default
    return schema


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], *(() if None in schema["enum"] else (None,))]}
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    return schema


def _number(row: Field, facts: ModelFacts) -> dict[str, Any]:
    low, high = row.bounds(facts)
    return {"type": row.kind, "exclusiveMinimum" if row.above_low else "minimum": low, "maximum": high}


def _text(row: Field, facts: ModelFacts) -> dict[str, Any]:
    low, high = row.bounds(facts)
    pattern = {"pattern": f"^{row.pattern}$"} if row.pattern else {}
    return {"type": "string", "minLength": low, "maxLength": high, **pattern}


def _texts(row: Field, facts: ModelFacts) -> dict[str, Any]:
    low, high = row.bounds(facts)
    one = {"type": "string", "minLength": 1, "maxLength": row.longest}
    return {"anyOf": [one, {"type": "array", "minItems": low, "maxItems": high, "items": one}]}


def _list(row: Field, facts: ModelFacts) -> dict[str, Any]:
    low, high = row.bounds(facts)
    return {"type": "array", "minItems": low, "maxItems": high}


def _token_ids(row: Field, facts: ModelFacts) -> dict[str, Any]:
    return {**_list(row, facts), "items": {"type": "integer", "minimum": 0, "maximum": facts.vocab_size - 1}}


def _prompt(row: Field, facts: ModelFacts) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1}
    one = {"type": "integer", "minimum": 0, "maximum": facts.vocab_size - 1}
    ids = {"type": "array", "minItems": 1, "items": one}
    several = {
        "type": "array",
        "minItems": 1,
        "maxItems": facts.max_prompts,
        "items": {"anyOf": [text, ids]},
    }
    return {"anyOf": [text, ids, several]}


def _object(row: Field, facts: ModelFacts) -> dict[str, Any]:
    _, high = row.bounds(facts)
    return {"type": "object", "maxProperties": high}


def _biases(row: Field, facts: ModelFacts) -> dict[str, Any]:
    names = {"pattern": f"^[0-9]{{1,{len(str(facts.vocab_size))}}}$"}
    return {**_object(row, facts), "propertyNames": names, "additionalProperties": {"type": "number"}}


def _variables(row: Field, facts: ModelFacts) -> dict[str, Any]:
    names = {"pattern": "^[A-Za-z][A-Za-z0-9_]*$", "not": {"enum": list(row.choices)}}
    scalars = {"type": ["string", "number", "boolean", "null"], "maxLength": row.longest}
    return {**_object(row, facts), "propertyNames": names, "additionalProperties": scalars}


_SCHEMAS: Mapping[Kind, Callable[[Field, ModelFacts], dict[str, Any]]] = {
    "boolean": lambda row, facts: {"type": "boolean"},
    "integer": _number,
    "number": _number,
    "text": _text,
    "choice": lambda row, facts: {"enum": list(row.choices)},
    "texts": _texts,
    "token_ids": _token_ids,
    "biases": _biases,
    "variables": _variables,
    "object": _object,
    "list": _list,
    "prompt": _prompt,
    "any": lambda row, facts: {},
    "refused": lambda row, facts: {"enum": [*row.harmless, None]},
}


def _operation(route: Route, method: str, facts: ModelFacts, access: Access) -> dict[str, Any]:
    about = OPERATIONS.get(route.pattern, Operation(route.pattern))
    name = re.sub(r"\W+", "_", route.pattern).strip("_")
    operation: dict[str, Any] = {
        "operationId": f"{method.lower()}_{name}",
        "summary": about.summary,
        "responses": _responses(route, about),
    }
    names = re.findall(r"\{(\w+)", route.pattern)
    if names:
        operation["parameters"] = [
            {"name": n, "in": "path", "required": True, "schema": _place(n, facts)} for n in names
        ]
    if about.request and method == "POST":
        content = {"application/json": {"schema": _reference(_request_name(about.request))}}
        operation["requestBody"] = {"required": True, "content": content}
    if access.metrics if route.auth is AuthClass.METRICS else access.inference and _guarded(route):
        operation["security"] = [{"bearer": []}, {"key": []}]
    return operation


def _place(name: str, facts: ModelFacts) -> dict[str, Any]:
    """Schema of a placeholder in a path."""
    if name == "model":
        return {"type": "string"} if facts.any_name else {"enum": list(facts.served_names)}
    return {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}


def _guarded(route: Route) -> bool:
    return route.auth in (AuthClass.INFERENCE, AuthClass.ADMIN)


def _responses(route: Route, about: Operation) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "OK"}
    if about.answer:
        good["content"] = {about.media: {"schema": _reference(about.answer)}}
        if about.streams:
            good["content"]["text/event-stream"] = {}
    statuses = set(_ALWAYS)
    if _guarded(route) or route.auth is AuthClass.METRICS:
        statuses |= {*_WITH_KEY, 404}
    if about.request:
        statuses |= set(_WITH_BODY)
    refusals = {str(status): _refusal(route, status) for status in sorted(statuses)}
    return {"200": good, **refusals}


def _refusal(route: Route, status: int) -> dict[str, Any]:
    own = "AnthropicError" if route.pattern.startswith("/v1/messages") else "Error"
    name = "Health" if route.auth is AuthClass.PROBE and status == 503 else own
    return {
        "description": HTTPStatus(status).phrase,
        "content": {"application/json": {"schema": _reference(name)}},
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _request_name(dialect: str) -> str:
    return dialect.replace("_", " ").title().replace(" ", "") + "Request"
