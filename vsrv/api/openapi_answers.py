"""JSON schemas of what vsrv answers: the fields that clients may rely on; further ones may come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_STRING, _INTEGER, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_STRING_OR_NULL: dict[str, Any] = {"type": ["string", "null"]}


def _object(optional: Mapping[str, Any] | None = None, /, **required: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
    }


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


_USAGE = _object(
    {
        "prompt_tokens_details": _or_null(_object(cached_tokens=_INTEGER)),
        "completion_tokens_details": _or_null({"type": "object"}),
    },
    prompt_tokens=_INTEGER,
    completion_tokens=_INTEGER,
    total_tokens=_INTEGER,
)
_FINISH = {"enum": ["stop", "length", "tool_calls", "function_call", "abort", "error", None]}
_STOP_REASON = {"type": ["string", "integer", "null"]}
_IDS = _or_null(_list(_INTEGER))
_PROMPT_LOGPROBS = _or_null(_list({"type": ["object", "null"]}))
_TOKEN = {"token": _STRING, "logprob": _NUMBER, "bytes": _or_null(_list(_INTEGER))}
_CHAT_LOGPROBS = _or_null(
    _object(content=_or_null(_list(_object(top_logprobs=_list(_object(**_TOKEN)), **_TOKEN))))
)
_LEGACY_LOGPROBS = _or_null(
    _object(
        tokens=_list(_STRING),
        token_logprobs=_list({"type": ["number", "null"]}),
        top_logprobs=_list({"type": ["object", "null"]}),
        text_offset=_list(_INTEGER),
    )
)
_MESSAGE = _object(
    {"reasoning": _STRING_OR_NULL, "refusal": _STRING_OR_NULL, "tool_calls": _list({"type": "object"})},
    role=_STRING,
    content=_STRING_OR_NULL,
)
_VECTOR = {"anyOf": [_list(_NUMBER), {"type": "string", "contentEncoding": "base64"}]}
_CARD = _object(
    id=_STRING,
    object={"const": "model"},
    created=_INTEGER,
    owned_by=_STRING,
    root=_STRING,
    parent=_STRING_OR_NULL,
    max_model_len=_INTEGER,
)


def _answer(kind: str, choice: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return _object(
        id=_STRING,
        object={"const": kind},
        created=_INTEGER,
        model=_STRING,
        choices=_list(choice),
        usage=_USAGE,
        system_fingerprint=_STRING_OR_NULL,
        **more,
    )


def _listed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What /v1/embeddings and /v1/score answer."""
    return _object(
        id=_STRING,
        object={"const": "list"},
        created=_INTEGER,
        model=_STRING,
        data=_list(entry),
        usage=_USAGE,
    )


ANSWERS: Mapping[str, Any] = {
    "Error": _object(error=_object(message=_STRING, type=_STRING, param=_STRING_OR_NULL, code=_STRING)),
    "AnthropicError": _object(
        type={"const": "error"},
        error=_object(
            type=_STRING, message=_STRING, details=_object(error_code=_STRING, param=_STRING_OR_NULL)
        ),
        request_id=_STRING,
    ),
    "Health": {
        "anyOf": [
            _object(status=_STRING, reason=_STRING, phase=_STRING, fraction=_NUMBER),
            {"$ref": "#/components/schemas/Error"},
        ]
    },
    "Plain": _STRING,
    "Document": _object(openapi=_STRING, paths={"type": "object"}),
    "Load": _object(server_load=_INTEGER),
    "Version": _object(version=_STRING),
    "Model": _CARD,
    "ModelList": _object(object={"const": "list"}, data=_list(_CARD)),
    "Tokens": _object(
        count=_INTEGER, max_model_len=_INTEGER, tokens=_list(_INTEGER), token_strs=_or_null(_list(_STRING))
    ),
    "TokenizerInfo": _object({"chat_template": _STRING}, tokenizer_class=_STRING),
    "Text": _object(prompt=_STRING),
    "Embeddings": _listed(_object(index=_INTEGER, object={"const": "embedding"}, embedding=_VECTOR)),
    "Scores": _listed(_object(index=_INTEGER, object={"const": "score"}, score=_NUMBER)),
    "Ranking": _object(
        id=_STRING,
        model=_STRING,
        usage=_object(prompt_tokens=_INTEGER, total_tokens=_INTEGER),
        results=_list(_object({"document": _object(text=_STRING)}, index=_INTEGER, relevance_score=_NUMBER)),
    ),
    "TokenCount": _object(input_tokens=_INTEGER),
    "Message": _object(
        id=_STRING,
        type={"const": "message"},
        role={"const": "assistant"},
        model=_STRING,
        content=_list(_object(type={"enum": ["text", "thinking", "tool_use"]})),
        stop_reason={"enum": ["end_turn", "max_tokens", "stop_sequence", "tool_use"]},
        stop_sequence=_STRING_OR_NULL,
        usage=_object(
            input_tokens=_INTEGER,
            cache_creation_input_tokens=_INTEGER,
            cache_read_input_tokens=_INTEGER,
            output_tokens=_INTEGER,
        ),
    ),
    "Response": _object(
        id=_STRING,
        object={"const": "response"},
        created_at=_INTEGER,
        status={"enum": ["completed", "incomplete"]},
        model=_STRING,
        output=_list(
            _object(type={"enum": ["message", "reasoning", "function_call", "custom_tool_call"]}, id=_STRING)
        ),
        incomplete_details=_or_null(_object(reason=_STRING)),
        error={"type": "null"},
        store={"const": False},
        usage=_object(
            input_tokens=_INTEGER,
            input_tokens_details=_object(cached_tokens=_INTEGER),
            output_tokens=_INTEGER,
            output_tokens_details=_object(reasoning_tokens=_INTEGER),
            total_tokens=_INTEGER,
        ),
    ),
    "ChatCompletion": _answer(
        "chat.completion",
        _object(
            index=_INTEGER,
            message=_MESSAGE,
            logprobs=_CHAT_LOGPROBS,
            finish_reason=_FINISH,
            stop_reason=_STOP_REASON,
            token_ids=_IDS,
        ),
        prompt_logprobs=_PROMPT_LOGPROBS,
        prompt_token_ids=_IDS,
        prompt_text=_STRING_OR_NULL,
    ),
    "Completion": _answer(
        "text_completion",
        _object(
            index=_INTEGER,
            text=_STRING,
            logprobs=_LEGACY_LOGPROBS,
            finish_reason=_FINISH,
            stop_reason=_STOP_REASON,
            token_ids=_IDS,
            prompt_logprobs=_PROMPT_LOGPROBS,
            prompt_token_ids=_IDS,
        ),
    ),
}
