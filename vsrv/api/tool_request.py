"""`tools` and what belongs to them in a chat request → checked tools, the choice among them, and the plan for reading the answer.

Legacy `functions` and `function_call` are the same under other names. Every count, name and schema is bounded (rule R9).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from vsrv.api.fields import Fields, invalid, unsupported
from vsrv.api.plans import ToolPlan
from vsrv.api.request_fields import FUNCTION_NAME, MAX_TOOLS
from vsrv.text.tool_bodies import parameter_types

_MAX_DESCRIPTION = 64 * 1024
_MAX_SCHEMA_BYTES = 128 * 1024
_MAX_ALL_BYTES = 1 << 20
MODES = ("none", "auto", "required")


@dataclass(frozen=True, slots=True)
class Tool:
    """One function that the model may call. `parameters` is a JSON schema, None if none was sent."""

    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool

    def for_template(self) -> dict[str, Any]:
        """As templates know it: the keys that models were trained with, in their order."""
        function: dict[str, Any] = {"name": self.name}
        if self.description is not None:
            function["description"] = self.description
        if self.parameters is not None:
            function["parameters"] = self.parameters
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """mode: "none", "auto" or "required"; `named`: one function was asked for by its name. `allowed`: only these may be called."""

    mode: str
    allowed: tuple[Tool, ...]
    named: bool = False


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """The tools of one request. `legacy`: sent as `functions`, so the answer has a `function_call`."""

    tools: tuple[Tool, ...]
    choice: ToolChoice
    parallel: bool = True
    legacy: bool = False

    @property
    def constrained(self) -> bool:
        """Whether calls must be held to the schemas although the model may choose not to call."""
        limited = len(self.choice.allowed) < len(self.tools)
        return limited or any(tool.strict for tool in self.choice.allowed)


def plan_of(request: ToolRequest, form: str) -> ToolPlan:
    types = tuple((tool.name, tuple(parameter_types(tool.parameters).items())) for tool in request.tools)
    finish = "function_call" if request.legacy else "stop" if request.choice.named else "tool_calls"
    return ToolPlan(form, types, request.parallel, finish, request.legacy)


def read_tools(fields: Fields) -> ToolRequest | None:
    """The tools of a chat, None if it has none. Raises UserError 400 naming the field."""
    legacy = fields.has("functions")
    if legacy and fields.has("tools"):
        raise invalid("functions", "cannot be sent together with tools")
    listed, param = (fields["functions"], "functions") if legacy else (fields["tools"], "tools")
    choice, choice_param = _choice_sent(fields, legacy)
    if listed is None:
        if choice not in (None, "none", "auto"):
            raise invalid(choice_param, f"needs {param}")
        return None
    tools = tuple(_tool(item, f"{param}[{index}]", legacy) for index, item in enumerate(listed))
    names = [tool.name for tool in tools]
    if len(set(names)) != len(names):
        raise invalid(param, "two functions have the same name")
    if sum(_size(tool.parameters) + len(tool.description or "") for tool in tools) > _MAX_ALL_BYTES:
        raise invalid(param, f"all together are larger than {_MAX_ALL_BYTES} bytes")
    chosen = _choice(choice, tools, choice_param)
    return ToolRequest(tools, chosen, fields["parallel_tool_calls"] and not legacy, legacy)


def _choice_sent(fields: Fields, legacy: bool) -> tuple[Any, str]:
    if not legacy:
        return fields["tool_choice"], "tool_choice"
    sent = fields["function_call"]
    if isinstance(sent, Mapping):
        sent = {"type": "function", "function": sent}
    return sent, "function_call"


def _tool(item: Any, where: str, legacy: bool) -> Tool:
    if not isinstance(item, Mapping):
        raise invalid(where, "expected an object")
    kind = "function" if legacy else item.get("type", "function")
    if kind != "function":
        raise unsupported(f"{where}.type", "other than function is not supported")
    function = item if legacy else item.get("function")
    where = where if legacy else f"{where}.function"
    if not isinstance(function, Mapping):
        raise invalid(where, "expected an object with a name")
    name, description, parameters = (function.get(key) for key in ("name", "description", "parameters"))
    if not isinstance(name, str) or not re.fullmatch(FUNCTION_NAME, name):
        raise invalid(f"{where}.name", "expected 1 to 128 letters, digits or any of _ . : / -")
    if description is not None and (not isinstance(description, str) or len(description) > _MAX_DESCRIPTION):
        raise invalid(f"{where}.description", f"expected text of at most {_MAX_DESCRIPTION} characters")
    if parameters is not None and not isinstance(parameters, dict):
        raise invalid(f"{where}.parameters", "expected a JSON schema")
    if _size(parameters) > _MAX_SCHEMA_BYTES:
        raise invalid(f"{where}.parameters", f"larger than {_MAX_SCHEMA_BYTES} bytes")
    strict = function.get("strict")
    if strict is not None and not isinstance(strict, bool):
        raise invalid(f"{where}.strict", "expected true or false")
    return Tool(name, description, parameters, bool(strict))


def _size(schema: dict[str, Any] | None) -> int:
    return 0 if schema is None else len(orjson.dumps(schema))


def _choice(sent: Any, tools: tuple[Tool, ...], param: str) -> ToolChoice:
    if sent is None:
        return ToolChoice("auto", tools)
    if isinstance(sent, str) and sent in MODES:
        return ToolChoice(sent, tools)
    kind = sent.get("type") if isinstance(sent, Mapping) else None
    if kind == "function":
        return ToolChoice("required", (_named(sent, tools, param),), True)
    if kind == "allowed_tools":
        inner = sent.get("allowed_tools", sent)
        mode = inner.get("mode") if isinstance(inner, Mapping) else None
        listed = inner.get("tools") if isinstance(inner, Mapping) else None
        if (
            mode not in ("auto", "required")
            or not isinstance(listed, list)
            or not 0 < len(listed) <= MAX_TOOLS
        ):
            raise invalid(param, 'allowed_tools needs a mode, "auto" or "required", and tools')
        allowed = {_named(item, tools, param).name for item in listed}
        return ToolChoice(mode, tuple(tool for tool in tools if tool.name in allowed))
    raise invalid(param, f"expected one of {', '.join(MODES)}, or an object that names a function")


def _named(item: Any, tools: tuple[Tool, ...], param: str) -> Tool:
    """{"type": "function", "function": {"name"}}, or the flat form of /v1/responses."""
    function = item.get("function", item) if isinstance(item, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise invalid(param, "expected the name of a function")
    found = next((tool for tool in tools if tool.name == name), None)
    if found is None:
        raise invalid(param, f"no function {name[:128]!r} is among the tools")
    return found


def marked_tools(tools: tuple[Tool, ...], marked: Callable[[str], str]) -> list[dict[str, Any]]:
    """The tools as the template gets them, every text of the client's marked."""
    return [marked_value(tool.for_template(), marked) for tool in tools]


def marked_value(value: Any, marked: Callable[[str], str]) -> Any:
    """JSON with every text in it marked, keys too; its nesting is bounded by the body's parser."""
    if isinstance(value, str):
        return marked(value)
    if isinstance(value, dict):
        return {marked(key): marked_value(item, marked) for key, item in value.items()}
    if isinstance(value, list):
        return [marked_value(item, marked) for item in value]
    return value
