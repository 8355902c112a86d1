"""Body of /v1/messages and /v1/messages/count_tokens → chat body. Source: Anthropic's API reference, and the types of its SDK."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from vsrv.api.dialect_fields import COUNT_TOKENS, MAX_ITEMS, MESSAGES, PASSED, TRANSLATED
from vsrv.api.fields import Fields, invalid, unsupported
from vsrv.api.request_fields import MAX_TOOLS
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
from vsrv.errors import UserError

# How chat's field names are called here.
NAMES = {
    "stop": "stop_sequences",
    "response_format": "output_config.format",
    "reasoning_effort": "output_config.effort",
    "thinking_token_budget": "thinking.budget_tokens",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "continue_final_message": "messages",
    "tools": "tools",
}
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_THINKING = ("enabled", "disabled", "adaptive", "between_tools")
_DISPLAYS = ("summarized", "omitted")
_CHOICES = ("auto", "any", "tool", "none")
_LEAST_BUDGET, _MOST_BUDGET = 1024, 1 << 20  # the reference's, and chat's
# Claude Code's first system block. It holds a hash of each request, so that no two prompts would begin alike.
_BILLING = "x-anthropic-billing-header:"
_FAILED = "The tool call failed."  # in front of a result with is_error, which chat messages have no place for


def messages_to_chat(fields: Fields, facts: ModelFacts, style: Style) -> Translated:
    """`fields` are checked against the table. Raises UserError 400, naming the field."""
    ignored = Ignored(list(fields.unknown(frozenset(TRANSLATED[MESSAGES]))))
    if not fields.has("max_tokens"):
        raise invalid("max_tokens", "is missing")
    chat = {name: fields.raw(name) for name in PASSED if fields.has(name)}
    chat |= _prompt(fields, ignored, style)
    chat["max_tokens"] = min(fields["max_tokens"], facts.max_model_len)
    chat["stop"] = list(fields["stop_sequences"])
    shown = choice_of(fields["thinking"] or {}, "display", "thinking.display", _DISPLAYS)
    return Translated(chat, {"hide_thinking": shown == "omitted"}, tuple(ignored.names))


def count_to_chat(fields: Fields, facts: ModelFacts, style: Style) -> Translated:
    """The prompt alone. Raises UserError 400."""
    ignored = Ignored(list(fields.unknown(frozenset(TRANSLATED[COUNT_TOKENS]))))
    return Translated(_prompt(fields, ignored, style), {}, tuple(ignored.names))


def too_long(error: UserError, facts: ModelFacts) -> UserError:
    """The refusal of a prompt in the words that Claude Code looks for before it compacts its conversation."""
    if error.code != "context_length_exceeded":
        return error
    longest = facts.max_model_len
    found = re.search(r"your prompt has ([0-9]+) tokens", error.message)
    count = found[1] if found is not None else f"more than {longest}"
    message = f"prompt is too long: {count} tokens > {longest} maximum"
    return UserError(error.status, error.code, message, error.param, error.retry_after_s)


def _prompt(fields: Fields, ignored: Ignored, style: Style) -> dict[str, Any]:
    """All that decides what the model reads."""
    # the reference: consecutive turns of one role are combined
    conversation = Conversation(Style(True, style.late_system))
    if fields.has("system"):
        texts = [text for text in _texts(fields.raw("system"), "system") if not text.startswith(_BILLING)]
        if texts:
            conversation.say("system", texts)
    messages = objects(fields["messages"], "messages", MAX_ITEMS)
    for index, message in enumerate(messages):
        _message(message, f"messages[{index}]", conversation, ignored)
    if not messages or not conversation.messages:
        raise invalid("messages", "expected at least one message that this server can read")
    chat: dict[str, Any] = {"model": fields["model"], "messages": conversation.finished()}
    if fields.has("chat_template_kwargs"):
        chat["chat_template_kwargs"] = fields["chat_template_kwargs"]
    last = conversation.messages[-1]
    if last["role"] == "assistant":  # the answer continues it
        if last.get("tool_calls"):
            raise invalid("messages", "the last message calls tools, and their results are missing")
        chat |= {"continue_final_message": True, "add_generation_prompt": False}
    return chat | _tools(fields, ignored, _discovered(messages)) | _thinking(fields) | _output(fields)


def _message(message: Mapping[str, Any], where: str, conversation: Conversation, ignored: Ignored) -> None:
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant", "system"):
        raise invalid(f"{where}.role", "expected user, assistant or system")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if blocks is None:
        raise invalid(f"{where}.content", "is missing")
    if blocks == []:
        conversation.say(role, [])
    for index, block in enumerate(objects(blocks, f"{where}.content", MAX_ITEMS)):
        at, kind = f"{where}.content[{index}]", block.get("type")
        reader = _BLOCKS.get((role, kind)) if isinstance(kind, str) else None
        if reader is not None:
            reader(block, at, conversation)
        elif role == "assistant" and isinstance(kind, str) and kind not in _ALL_BLOCKS:
            # what another server's own tools did, or thinking that nobody else can read
            ignored.add(f"{at} ({kind})")
        else:
            conversation.say(role, [_readable(block, at)])


def _tool_use(block: Mapping[str, Any], at: str, conversation: Conversation) -> None:
    arguments = block.get("input")
    if not isinstance(arguments, Mapping):
        raise invalid(f"{at}.input", "expected an object")
    conversation.call(text_of(block, "id", at), text_of(block, "name", at), orjson.dumps(arguments).decode())


def _tool_result(block: Mapping[str, Any], at: str, conversation: Conversation) -> None:
    content = block.get("content")
    texts = [] if content is None else _texts(content, f"{at}.content")
    failed = Fields(block).boolean("is_error", False)
    conversation.result(text_of(block, "tool_use_id", at), [_FAILED, *texts] if failed else texts)


def _thought(block: Mapping[str, Any], at: str, conversation: Conversation) -> None:
    text = text_of(block, "thinking", at) or uncarried(block.get("signature"))
    if text:
        conversation.think(text)


_BLOCKS: dict[tuple[str, str], Callable[[Mapping[str, Any], str, Conversation], None]] = {
    ("assistant", "tool_use"): _tool_use,
    ("assistant", "thinking"): _thought,
    ("user", "tool_result"): _tool_result,
}


def _texts(content: Any, where: str) -> list[str]:
    """A text, or blocks that can be read as text."""
    if isinstance(content, str):
        return [content]
    blocks = objects(content, where, MAX_ITEMS)
    return [_readable(block, f"{where}[{index}]") for index, block in enumerate(blocks)]


def _readable(block: Mapping[str, Any], at: str) -> str:
    """The text of a block. Raises UserError 400 for images and whatever else is none."""
    kind = block.get("type")
    if kind == "text":
        return text_of(block, "text", at)
    if kind == "tool_reference":
        return text_of(block, "tool_name", at)
    if kind == "search_result":
        inner = _texts(block.get("content"), f"{at}.content")
        return "\n".join([text_of(block, "title", at), text_of(block, "source", at), *inner])
    if kind == "document":
        source = table_of(block, "source")
        if source.get("type") == "text":
            title = block.get("title")
            text = text_of(source, "data", f"{at}.source")
            return f"{title}\n{text}" if isinstance(title, str) else text
        if source.get("type") == "content":
            return "\n".join(_texts(source.get("content"), f"{at}.source.content"))
    if not isinstance(kind, str):
        raise invalid(f"{at}.type", "is missing")
    raise unsupported(at, f"is of type {kind[:40]!r}, which is not supported: text only")


_ALL_BLOCKS = {"text", "image", "document", "search_result", "tool_reference", "tool_result"} | {
    kind for _, kind in _BLOCKS
}


def _discovered(messages: list[Mapping[str, Any]]) -> set[str]:
    """Names of tools that a search of the client's has found: results of tools refer to them. Only read, not checked."""
    blocks = [block for message in messages for block in _list(message.get("content"))]
    inner = [part for block in blocks for part in _list(block.get("content"))]
    return {str(part.get("tool_name")) for part in inner if part.get("type") == "tool_reference"}


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _tools(fields: Fields, ignored: Ignored, discovered: set[str]) -> dict[str, Any]:
    """Tools that the client runs. Those that Anthropic's servers run, or that only its models know, are read over.

    One with `defer_loading` is for the model to find first: it stands in the prompt when a result refers to it.
    """
    tools: list[dict[str, Any]] = []
    for index, tool in enumerate(objects(fields["tools"], "tools", MAX_TOOLS)):
        kind, at = tool.get("type"), f"tools[{index}]"
        if kind not in (None, "custom"):
            ignored.add(f"{at} ({kind})")
            continue
        schema = tool.get("input_schema")
        if not isinstance(schema, Mapping):
            raise invalid(f"{at}.input_schema", "expected an object")
        function = {"name": text_of(tool, "name", at), "parameters": schema}
        function |= {name: tool[name] for name in ("description", "strict") if tool.get(name) is not None}
        if not Fields(tool).boolean("defer_loading", False) or function["name"] in discovered:
            tools.append({"type": "function", "function": function})
    wanted = fields["tool_choice"] or {}
    if wanted and wanted.get("type") is None:
        raise invalid("tool_choice.type", "is missing")
    kind = choice_of(wanted, "type", "tool_choice.type", _CHOICES)
    if not tools:
        if kind in ("any", "tool"):
            raise invalid("tool_choice", "asks for a tool, and there is none that the client runs")
        return {}
    chat: dict[str, Any] = {"tools": tools}
    if kind is not None:
        chat["tool_choice"] = _choice(wanted, kind, tools)
    if Fields(wanted).boolean("disable_parallel_tool_use", False):
        chat["parallel_tool_calls"] = False
    return chat


def _choice(wanted: Mapping[str, Any], kind: str, tools: list[dict[str, Any]]) -> Any:
    if kind != "tool":
        return {"auto": "auto", "any": "required", "none": "none"}[kind]
    name = text_of(wanted, "name", "tool_choice")
    if all(tool["function"]["name"] != name for tool in tools):
        raise invalid("tool_choice.name", f"there is no tool {name[:60]!r} that the client runs")
    return {"type": "function", "function": {"name": name}}


def _thinking(fields: Fields) -> dict[str, Any]:
    """enabled and disabled set the template's switch; adaptive leaves it to the model."""
    thinking = fields["thinking"] or {}
    if thinking and thinking.get("type") is None:
        raise invalid("thinking.type", "is missing")
    kind = choice_of(thinking, "type", "thinking.type", _THINKING)
    if kind not in ("enabled", "disabled"):
        return {}
    variables = {"enable_thinking": kind == "enabled", **(fields["chat_template_kwargs"] or {})}
    chat: dict[str, Any] = {"chat_template_kwargs": variables}
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        if isinstance(budget, bool) or not isinstance(budget, int) or budget < _LEAST_BUDGET:
            raise invalid("thinking.budget_tokens", f"expected an integer of at least {_LEAST_BUDGET}")
        chat["thinking_token_budget"] = min(budget, _MOST_BUDGET)
    return chat


def _output(fields: Fields) -> dict[str, Any]:
    config = fields["output_config"] or {}
    chat: dict[str, Any] = {}
    effort = choice_of(config, "effort", "output_config.effort", _EFFORTS)
    if effort is not None:
        chat["reasoning_effort"] = effort
    where = "output_config.format" if config.get("format") is not None else "output_format"  # its older place
    form = table_of(config, "format") or fields["output_format"] or {}
    if form:
        if form.get("type") != "json_schema" or not isinstance(form.get("schema"), Mapping):
            raise invalid(where, "expected type json_schema and a schema")
        schema = {"name": "output", "schema": form["schema"], "strict": True}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    return chat
