"""Parts of a generation → the events of /v1/responses, with item ids, indices and sequence numbers; a state machine without I/O.

Source: the event types of OpenAI's SDK. The whole answer is the response of the last event, so that both are always the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vsrv.api.generation import Part
from vsrv.api.responses_tools import custom_input
from vsrv.api.translation import carried
from vsrv.errors import EngineError, UserError
from vsrv.text.tools import ToolCallDelta

Event = dict[str, Any]
_ENDINGS = {"stop": "completed", "tool_calls": "completed", "length": "incomplete"}
_ERROR_CODES = {"rate_limit_exceeded", "server_error", "invalid_prompt"}  # of those that a response may carry


@dataclass(slots=True)
class _Item:
    """One output item while it is being made. `key` says what a part has to bring to belong to it."""

    key: tuple[str, int]
    value: dict[str, Any]
    index: int
    pieces: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class ResponseEvents:
    """Owned by one answer. `told` is what the translator kept of the request; `base` is the response without what comes later."""

    def __init__(self, base: dict[str, Any], told: dict[str, Any], item_suffix: str) -> None:
        self._base = base
        self._told = told
        self._suffix = item_suffix
        self._number = 0
        self._output: list[dict[str, Any]] = []
        self._open: _Item | None = None
        self._as_summary = told["reasoning"]["summary"] is not None

    def begin(self) -> list[Event]:
        started = self._response("in_progress")
        return [
            self._event("response.created", response=started),
            self._event("response.in_progress", response=started),
        ]

    def feed(self, part: Part, logprobs: list[dict[str, Any]]) -> list[Event]:
        """What one part adds. Raises EngineError for a part that ended in none of the ways that a response can end."""
        if part.finish_reason is not None and part.finish_reason not in _ENDINGS:
            raise EngineError("engine_error", f"the engine ended the answer: {part.finish_reason}")
        made: list[Event] = []
        if part.reasoning:
            made += self._reasoning(part.reasoning)
        if part.text:
            made += self._text(part.text, logprobs)
        for call in part.tool_calls:
            made += self._call(call)
        return made

    def end(self, part: Part, usage: dict[str, Any]) -> list[Event]:
        """After the last part. An answer that says nothing has one empty message, since clients look at the first item."""
        status = _ENDINGS[part.finish_reason or "stop"]
        made = [] if self._output or self._open else self._text("", [])
        made += self._closed(status)
        response = self._response(status)
        response["usage"] = usage
        if status == "completed":
            response["completed_at"] = int(time.time())
        else:
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        return [*made, self._event(f"response.{status}", response=response)]

    def failed(self, error: UserError) -> Event:
        """What ends a stream that has begun."""
        response = self._response("failed")
        code = error.code if error.code in _ERROR_CODES else "server_error"
        response["error"] = {"code": code, "message": f"{error.message} ({error.code})"}
        return self._event("response.failed", response=response)

    # one kind of item each

    def _reasoning(self, text: str) -> list[Event]:
        made: list[Event] = []
        if not self._is_open(("reasoning", 0)):
            empty: dict[str, Any] = {"type": "reasoning", "status": "in_progress", "summary": []}
            made = self._opened(
                ("reasoning", 0), "rs", empty if self._as_summary else {**empty, "content": []}
            )
            made.append(self._reasoning_event("part.added", part=self._reasoning_part("")))
        made.append(self._reasoning_event("text.delta", delta=text))
        self._item.pieces.append(text)
        return made

    def _reasoning_done(self, item: _Item) -> list[Event]:
        part = self._reasoning_part(item.text)
        item.value["summary" if self._as_summary else "content"] = [part]
        if self._told["carries_reasoning"]:
            item.value["encrypted_content"] = carried(item.text)
        return [
            self._reasoning_event("text.done", text=item.text),
            self._reasoning_event("part.done", part=part),
        ]

    def _reasoning_part(self, text: str) -> dict[str, Any]:
        return {"type": "summary_text" if self._as_summary else "reasoning_text", "text": text}

    def _reasoning_event(self, what: str, **fields: Any) -> Event:
        """A client that asks for a summary shows nothing else: it gets the reasoning in its place, as it is."""
        if self._as_summary:
            return self._of_item(f"response.reasoning_summary_{what}", summary_index=0, **fields)
        head = "response.content_" if what.startswith("part") else "response.reasoning_"
        return self._of_item(head + what, content_index=0, **fields)

    def _text(self, text: str, logprobs: list[dict[str, Any]]) -> list[Event]:
        made: list[Event] = []
        if not self._is_open(("message", 0)):
            empty = {"type": "message", "role": "assistant", "status": "in_progress", "content": []}
            made = self._opened(("message", 0), "msg", empty)
            part = _text_part("", [])
            made.append(self._of_item("response.content_part.added", content_index=0, part=part))
        if text:
            fields = {"content_index": 0, "delta": text, "logprobs": logprobs}
            made.append(self._of_item("response.output_text.delta", **fields))
        self._item.pieces.append(text)
        self._item.logprobs += logprobs
        return made

    def _text_done(self, item: _Item) -> list[Event]:
        part = _text_part(item.text, item.logprobs)
        item.value["content"] = [part]
        fields = {"content_index": 0, "text": item.text, "logprobs": item.logprobs}
        return [
            self._of_item("response.output_text.done", **fields),
            self._of_item("response.content_part.done", content_index=0, part=part),
        ]

    def _call(self, call: ToolCallDelta) -> list[Event]:
        made: list[Event] = []
        if not (self._is_open(("function_call", call.index)) or self._is_open(("custom_call", call.index))):
            made = self._call_opened(call)
        if call.arguments:
            self._item.pieces.append(call.arguments)
            if self._item.key[0] == "function_call":
                made.append(self._of_item("response.function_call_arguments.delta", delta=call.arguments))
        return made

    def _call_opened(self, call: ToolCallDelta) -> list[Event]:
        """A call under the name and in the kind in which the client knows the tool."""
        origin = dict(self._told["origins"].get(call.name) or {"kind": "function", "name": call.name})
        if origin.pop("kind") == "custom":
            value = {"type": "custom_tool_call", "call_id": call.id, "input": "", **origin}
            return self._opened(("custom_call", call.index), "ctc", value)
        value = {"type": "function_call", "call_id": call.id, "arguments": "", "status": "in_progress"}
        return self._opened(("function_call", call.index), "fc", value | origin)

    def _function_done(self, item: _Item) -> list[Event]:
        item.value["arguments"] = item.text
        done = {"name": item.value["name"], "arguments": item.text}
        return [self._of_item("response.function_call_arguments.done", **done)]

    def _custom_done(self, item: _Item) -> list[Event]:
        """The input is inside of a JSON text, which is read when it is whole."""
        text = item.value["input"] = custom_input(item.text)
        return [
            self._of_item("response.custom_tool_call_input.delta", delta=text),
            self._of_item("response.custom_tool_call_input.done", input=text),
        ]

    # what all items share

    @property
    def _item(self) -> _Item:
        assert self._open is not None
        return self._open

    def _is_open(self, key: tuple[str, int]) -> bool:
        return self._open is not None and self._open.key == key

    def _opened(self, key: tuple[str, int], prefix: str, value: dict[str, Any]) -> list[Event]:
        made = self._closed("completed")
        index = len(self._output)
        value = {"id": f"{prefix}_{index}{self._suffix}", **value}
        self._open = _Item(key, value, index)
        added = self._event("response.output_item.added", output_index=index, item=dict(value))
        return [*made, added]

    def _closed(self, status: str) -> list[Event]:
        item = self._open
        if item is None:
            return []
        closers: dict[str, Callable[[_Item], list[Event]]] = {
            "reasoning": self._reasoning_done,
            "message": self._text_done,
            "function_call": self._function_done,
            "custom_call": self._custom_done,
        }
        made = closers[item.key[0]](item)
        if "status" in item.value:
            item.value["status"] = status
        self._output.append(item.value)
        self._open = None
        return [*made, self._event("response.output_item.done", output_index=item.index, item=item.value)]

    def _of_item(self, kind: str, **fields: Any) -> Event:
        return self._event(kind, item_id=self._item.value["id"], output_index=self._item.index, **fields)

    def _event(self, kind: str, **fields: Any) -> Event:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return event

    def _response(self, status: str) -> dict[str, Any]:
        return {**self._base, "status": status, "output": list(self._output)}


def _text_part(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}
