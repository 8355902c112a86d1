"""Tools for models whose chat template has no place for them: told in the system message, calls and results as plain text.

The wording is that of Hermes' and Qwen's templates (https://huggingface.co/NousResearch/Hermes-2-Pro-Llama-3-8B), which write calls
in the "hermes" format. Used only where the operator has named that format: a model that was not trained on it may not follow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

FORM = "hermes"
_BEFORE = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
"""
_AFTER = """
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""
Message = dict[str, Any]


def with_tools(messages: Sequence[Message], tools: Sequence[Message]) -> list[Message]:
    """Messages and tools as templates get them → messages with the tools in the first one and no role but system, user, assistant."""
    told = _BEFORE + "\n".join(_json(tool) for tool in tools) + _AFTER
    rest = [_plain(message) for message in messages]
    if rest[0]["role"] == "system":
        first = {**rest[0], "content": _joined(rest[0]["content"], f"\n\n{told}")}
        return _merged([first, *rest[1:]])
    return _merged([{"role": "system", "content": _like(rest[0]["content"], told)}, *rest])


def _plain(message: Message) -> Message:
    content = message["content"]
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    calls = [call["function"] for call in message.get("tool_calls", ())]
    if not calls:
        return message
    written = "\n".join(f"<tool_call>\n{_json(call)}\n</tool_call>" for call in calls)
    return {"role": message["role"], "content": _joined(content, f"\n{written}" if content else written)}


def _merged(messages: list[Message]) -> list[Message]:
    """Results of several tools are one message: many templates want user and assistant to take turns."""
    merged: list[Message] = []
    for message in messages:
        last = merged[-1] if merged else None
        if last is not None and _is_result(last) and _is_result(message):
            merged[-1] = {**last, "content": f"{last['content']}\n{message['content']}"}
        else:
            merged.append(message)
    return merged


def _is_result(message: Message) -> bool:
    content = message["content"]
    return message["role"] == "user" and isinstance(content, str) and content.startswith("<tool_response>\n")


def _joined(content: Any, more: str) -> Any:
    return [*content, {"type": "text", "text": more}] if isinstance(content, list) else content + more


def _like(content: Any, text: str) -> Any:
    return [{"type": "text", "text": text}] if isinstance(content, list) else text


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
