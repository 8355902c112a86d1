"""Body of /v1/responses → chat body. Source: OpenAI's API reference, the types of its SDK, and the source of Codex.

Stateless: the client sends the whole conversation each time, as Codex does. What would need a memory is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vsrv.api.dialect_fields import MAX_ITEMS, PASSED, RESPONSES, TRANSLATED
from vsrv.api.fields import Fields, invalid, unsupported
from vsrv.api.request_fields import EFFORTS
from vsrv.api.responses_tools import Tools, custom_arguments, flat_name, read_choice, read_tools
from vsrv.api.schema import ModelFacts
from vsrv.api.translation import (
    Conversation,
    Ignored,
    Style,
    Translated,
    choice_of,
    objects,
    table_of,
    text_of,
    uncarried,
)

# How chat's field names are called here.
NAMES = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "include",
    "continue_final_message": "input",
    "tools": "tools",
}
_LONGEST_KEY, _LONGEST_VALUE = 64, 512  # of metadata
_SUMMARIES = ("auto", "concise", "detailed")
_REPEATED = (
    "instructions max_output_tokens max_tool_calls parallel_tool_calls prompt_cache_key safety_identifier truncation user"
).split()


def responses_to_chat(fields: Fields, facts: ModelFacts, style: Style) -> Translated:
    """`fields` are checked against the table. Raises UserError 400, naming the field."""
    ignored = Ignored(list(fields.unknown(frozenset(TRANSLATED[RESPONSES]))))
    tools = read_tools(fields["tools"], ignored)
    choice, shown_choice = read_choice(fields["tool_choice"], tools)
    chat: dict[str, Any] = {name: fields.raw(name) for name in PASSED if fields.has(name)}
    chat |= {"messages": _messages(fields, ignored, style), "stop": list(fields["stop"]), **choice}
    if tools.functions:
        chat |= {"tools": tools.functions, "parallel_tool_calls": fields["parallel_tool_calls"]}
    if fields.has("max_output_tokens"):
        chat["max_tokens"] = min(fields["max_output_tokens"], facts.max_model_len)
    form, text = _text(fields["text"] or {})
    reasoning = _reasoning(fields["reasoning"] or {})
    if reasoning["effort"] is not None:
        chat["reasoning_effort"] = reasoning["effort"]
    included = _included(fields)
    top = fields["top_logprobs"] or 0
    if "message.output_text.logprobs" in included:
        chat |= {"logprobs": True, "top_logprobs": top}
    told = {
        **{name: fields[name] for name in _REPEATED},
        "metadata": _metadata(fields["metadata"] or {}),
        "reasoning": reasoning,
        "text": text,
        "tool_choice": shown_choice,
        "tools": tools.shown,
        "top_logprobs": top,
        "origins": _origins(tools),
        "carries_reasoning": "reasoning.encrypted_content" in included,
    }
    return Translated(chat | form, told, tuple(ignored.names))


def _origins(tools: Tools) -> dict[str, dict[str, str]]:
    """Of the tools whose calls are told in another way than they stand in the prompt.

    Models drop namespaces: the bare name stands for its tool as well, where no other has it.
    """
    told = {n: origin for n, origin in tools.origins.items() if origin != {"kind": "function", "name": n}}
    bare: dict[str, list[dict[str, str]]] = {}
    for origin in told.values():
        bare.setdefault(origin["name"], []).append(origin)
    alone = {n: found[0] for n, found in bare.items() if len(found) == 1 and n not in tools.origins}
    return told | alone


def _messages(fields: Fields, ignored: Ignored, style: Style) -> list[dict[str, Any]]:
    conversation = Conversation(style)
    if fields["instructions"]:
        conversation.say("system", [fields["instructions"]])
    given = fields["input"]
    if isinstance(given, str):
        conversation.say("user", [given])
    elif given is None:
        raise invalid("input", "is missing")
    else:
        for index, item in enumerate(objects(given, "input", MAX_ITEMS)):
            _item(item, f"input[{index}]", conversation, ignored)
    if all(message["role"] == "system" for message in conversation.messages):
        conversation.say("user", [""])  # Codex looks whether the server is there with no input at all
    return conversation.finished()


def _item(item: Mapping[str, Any], at: str, conversation: Conversation, ignored: Ignored) -> None:
    kind = item.get("type", "message")
    reader = _ITEMS.get(kind) if isinstance(kind, str) else None
    if reader is not None:
        reader(item, at, conversation)
    elif kind in ("item_reference", "compaction"):
        raise unsupported(
            at, f"is a {kind}, which refers to what another server keeps; send the items themselves"
        )
    elif isinstance(kind, str):
        ignored.add(f"{at} ({kind})")  # what another server's own tools did, or notes of the client to itself
    else:
        raise invalid(f"{at}.type", "expected text")


def _message(item: Mapping[str, Any], at: str, conversation: Conversation) -> None:
    role = item.get("role")
    if role not in ("user", "assistant", "system", "developer"):
        raise invalid(f"{at}.role", "expected user, assistant, system or developer")
    texts = _texts(item.get("content"), f"{at}.content")
    conversation.say("system" if role == "developer" else role, texts)


def _function_call(item: Mapping[str, Any], at: str, conversation: Conversation) -> None:
    name = flat_name(item.get("namespace"), text_of(item, "name", at))
    conversation.call(text_of(item, "call_id", at), name, text_of(item, "arguments", at))


def _custom_call(item: Mapping[str, Any], at: str, conversation: Conversation) -> None:
    name = flat_name(item.get("namespace"), text_of(item, "name", at))
    conversation.call(text_of(item, "call_id", at), name, custom_arguments(text_of(item, "input", at)))


def _output(item: Mapping[str, Any], at: str, conversation: Conversation) -> None:
    conversation.result(text_of(item, "call_id", at), _texts(item.get("output"), f"{at}.output"))


def _thought(item: Mapping[str, Any], at: str, conversation: Conversation) -> None:
    """The reasoning itself where it is there, else what it travelled in, else the summary; what another server has sealed is nothing to us."""
    texts = _texts(item.get("content") or [], f"{at}.content")
    text = "".join(texts) or uncarried(item.get("encrypted_content"))
    text = text or "\n".join(_texts(item.get("summary") or [], f"{at}.summary"))
    if text:
        conversation.think(text)


_ITEMS: Mapping[str, Callable[[Mapping[str, Any], str, Conversation], None]] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _output,
    "custom_tool_call": _custom_call,
    "custom_tool_call_output": _output,
    "reasoning": _thought,
}
_TEXT_PARTS = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "refusal": "refusal",
    "summary_text": "text",
    "reasoning_text": "text",
}


def _texts(content: Any, where: str) -> list[str]:
    if isinstance(content, str):
        return [content]
    if content is None:
        raise invalid(where, "is missing")
    texts: list[str] = []
    for index, part in enumerate(objects(content, where, MAX_ITEMS)):
        kind, at = part.get("type"), f"{where}[{index}]"
        if not isinstance(kind, str):
            raise invalid(f"{at}.type", "is missing")
        if kind not in _TEXT_PARTS:
            raise unsupported(at, f"is of type {kind[:40]!r}, which is not supported: text only")
        texts.append(text_of(part, _TEXT_PARTS[kind], at))
    return texts


def _text(text: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """text → (chat's fields, text as the answer repeats it)."""
    form = table_of(text, "format")
    kind = choice_of(form, "type", "text.format.type", ("text", "json_object", "json_schema")) or "text"
    shown = {**text, "format": dict(form) or {"type": "text"}}
    verbosity = choice_of(text, "verbosity", "text.verbosity", ("low", "medium", "high"))
    chat: dict[str, Any] = {} if verbosity is None else {"verbosity": verbosity}
    if kind == "json_object":
        chat["response_format"] = {"type": "json_object"}
    if kind == "json_schema":
        if not isinstance(form.get("schema"), Mapping):
            raise invalid("text.format.schema", "expected an object")
        names = ("name", "description", "schema", "strict")
        schema = {name: form[name] for name in names if form.get(name) is not None}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    return chat, shown


def _reasoning(table: Mapping[str, Any]) -> dict[str, Any]:
    effort = choice_of(table, "effort", "reasoning.effort", EFFORTS)
    summary = choice_of(table, "summary", "reasoning.summary", (*_SUMMARIES, "none"))
    summary = summary or choice_of(table, "generate_summary", "reasoning.generate_summary", _SUMMARIES)
    return {"effort": effort, "summary": None if summary == "none" else summary}


def _included(fields: Fields) -> list[str]:
    """Names of what no tool of ours produces ask for nothing."""
    names: list[str] = fields["include"] or []
    if not all(isinstance(name, str) and len(name) <= 100 for name in names):
        raise invalid("include", "each name is a text of at most 100 characters")
    return names


def _metadata(table: Mapping[str, Any]) -> dict[str, str]:
    for key, value in table.items():
        if len(key) > _LONGEST_KEY or not isinstance(value, str) or len(value) > _LONGEST_VALUE:
            message = f"keys have at most {_LONGEST_KEY}, values (text) {_LONGEST_VALUE} characters"
            raise invalid("metadata", message)
    return dict(table)
