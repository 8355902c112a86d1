"""OpenAI messages → what chat templates expect. Texts of the client's are marked, so that they hold no control tokens (rule R18)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from vsrv.api.fields import deeper_than, invalid, unsupported
from vsrv.api.tool_request import marked_value

Marked = Callable[[str], str]
_MAX_CALLS = 512  # of one message
_MAX_DEPTH = 64  # of arguments
_MAX_NAME = 256  # characters of a function's name or a call's id


def template_messages(value: Any, marked: Marked, in_parts: bool) -> list[dict[str, Any]]:
    """Role and content, and what else templates know. Raises UserError 400.

    Content is a list of text parts with `in_parts`, else one text; a tool's is always one text.
    """
    if not value:
        raise invalid("messages", "expected a list of at least one message")
    return [_message(message, f"messages[{index}]", marked, in_parts) for index, message in enumerate(value)]


def _message(message: Any, where: str, marked: Marked, in_parts: bool) -> dict[str, Any]:
    role = message.get("role") if isinstance(message, Mapping) else None
    if not isinstance(role, str) or not 0 < len(role) <= 64:
        raise invalid(where, "expected an object with a role")
    role = {"developer": "system", "function": "tool"}.get(role, role)
    texts = _texts_of(message.get("content"), where)
    entry: dict[str, Any] = {
        "role": marked(role),
        "content": _content(texts, marked, in_parts and role != "tool"),
    }
    for name in ("name", "tool_call_id"):
        if isinstance(message.get(name), str):
            entry[name] = marked(message[name])
    thoughts = message.get("reasoning_content", message.get("reasoning"))
    if isinstance(thoughts, str):  # templates know the one name, clients send back either
        entry["reasoning_content"] = entry["reasoning"] = marked(thoughts)
    calls = _calls(message, where, marked)
    if calls:
        entry["tool_calls"] = calls
    return entry


def _calls(message: Mapping[str, Any], where: str, marked: Marked) -> list[dict[str, Any]]:
    """`tool_calls`, or the older `function_call`; arguments as objects, which is what templates write."""
    listed, legacy = message.get("tool_calls"), message.get("function_call")
    if listed is None and legacy is not None:
        return [_call({"id": "legacy000", "function": legacy}, f"{where}.function_call", marked)]
    if listed is None:
        return []
    if not isinstance(listed, list) or len(listed) > _MAX_CALLS:
        raise invalid(f"{where}.tool_calls", f"expected a list of at most {_MAX_CALLS} calls")
    return [_call(call, f"{where}.tool_calls[{index}]", marked) for index, call in enumerate(listed)]


def _call(call: Any, where: str, marked: Marked) -> dict[str, Any]:
    kind = call.get("type", "function") if isinstance(call, Mapping) else None
    if kind != "function":
        raise unsupported(f"{where}.type", "other than function is not supported")
    function, id = call.get("function"), call.get("id", "")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
        raise invalid(f"{where}.function.name", f"expected 1 to {_MAX_NAME} characters")
    if not isinstance(id, str) or len(id) > _MAX_NAME:
        raise invalid(f"{where}.id", f"expected text of at most {_MAX_NAME} characters")
    arguments = _arguments(function.get("arguments"), f"{where}.function.arguments")
    shown = {"name": marked(name), "arguments": marked_value(arguments, marked)}
    return {"id": marked(id), "type": "function", "function": shown}


def _arguments(sent: Any, where: str) -> dict[str, Any]:
    """The text that a model once wrote. What is no JSON object counts as none, as in vLLM: the history must not break the chat."""
    if sent is None or isinstance(sent, dict):
        return sent or {}
    if not isinstance(sent, str):
        raise invalid(where, "expected the JSON text of an object")
    text = sent.encode()
    if deeper_than(text, _MAX_DEPTH):
        raise invalid(where, f"nested deeper than {_MAX_DEPTH} levels")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _content(texts: list[str], marked: Marked, in_parts: bool) -> str | list[dict[str, str]]:
    if in_parts:
        return [{"type": "text", "text": marked(text)} for text in texts]
    return marked("\n".join(texts))


def _texts_of(content: Any, where: str) -> list[str]:
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise invalid(f"{where}.content", "expected text or a list of parts")
    texts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in ("text", "input_text", "output_text") and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            texts.append(part["refusal"])
        elif isinstance(kind, str) and kind not in ("text", "input_text", "output_text", "refusal"):
            raise unsupported(f"{where}.content", f"of type {kind[:40]!r} is not supported: text only")
        else:
            raise invalid(f"{where}.content", "each part needs a type and its text")
    return texts


def cut_after_last(text: str, messages: list[dict[str, Any]]) -> str:
    """continue_final_message: the prompt ends with the last message's own text. Raises UserError 400."""
    content = last_text(messages).rstrip()
    at = text.rfind(content) if content else -1
    if at < 0:
        raise invalid("continue_final_message", "the template does not end with the last message's text")
    return text[: at + len(content)]


def last_text(messages: list[dict[str, Any]]) -> str:
    content = messages[-1]["content"]
    if isinstance(content, list):
        content = content[-1]["text"] if content else ""
    return str(content)
