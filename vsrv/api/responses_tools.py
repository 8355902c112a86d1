"""Tools of /v1/responses → chat's function tools, and back to the names and kinds that the client knows.

Chat knows functions alone. A custom tool (free text) becomes a function with one text argument; the functions of a namespace (Codex groups those
of an MCP server) get the namespace in front of their name. Kinds that a server would have to run are read over: Codex always sends some.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from vsrv.api.fields import invalid, unsupported
from vsrv.api.request_fields import MAX_TOOLS
from vsrv.api.translation import Ignored, choice_of, objects, table_of, text_of

_CALLED = ("function", "custom")
_HOME = "functions"  # the namespace that Codex means when it names none
_INPUT = "input"  # the one argument that a custom tool's function has


def flat_name(namespace: Any, name: str) -> str:
    """The function's name in the prompt."""
    if not isinstance(namespace, str) or namespace in ("", _HOME):
        return name
    return f"{namespace}{name}" if namespace.endswith("__") else f"{namespace}__{name}"


def custom_arguments(text: str) -> str:
    """A custom tool's input as the arguments of its function."""
    return orjson.dumps({_INPUT: text}).decode()


def custom_input(arguments: str) -> str:
    """The other way; arguments of another form are the input themselves."""
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments
    text = value.get(_INPUT) if isinstance(value, dict) else None
    return text if isinstance(text, str) else arguments


@dataclass(slots=True)
class Tools:
    """`functions` are for chat, `shown` for the answer; `origins` has kind, name and namespace of each function by its name in the prompt."""

    functions: list[dict[str, Any]] = field(default_factory=list)
    shown: list[dict[str, Any]] = field(default_factory=list)
    origins: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, tool: Mapping[str, Any], at: str, namespace: str) -> None:
        own = text_of(tool, "name", at)
        name = flat_name(namespace, own)
        if len(self.functions) >= MAX_TOOLS:
            raise invalid("tools", f"there are more than {MAX_TOOLS} with those of the namespaces")
        if name in self.origins:
            raise invalid(f"{at}.name", f"two tools would be called {name[:60]!r}")
        self.origins[name] = {"kind": tool["type"], "name": own} | (
            {"namespace": namespace} if namespace else {}
        )
        described = (
            _function(tool, name, at) if tool["type"] == "function" else _custom_function(tool, name, at)
        )
        self.functions.append({"type": "function", "function": described})


def read_tools(value: Any, ignored: Ignored) -> Tools:
    """Raises UserError 400, naming the tool."""
    tools = Tools()
    for index, tool in enumerate(objects(value, "tools", MAX_TOOLS)):
        kind, at = tool.get("type"), f"tools[{index}]"
        if kind in _CALLED:
            tools.add(tool, at, "")
            tools.shown.append(_shown(tool))
        elif kind == "namespace":
            tools.shown.append(_namespace(tool, at, tools, ignored))
        elif isinstance(kind, str):
            ignored.add(f"{at} ({kind})")
        else:
            raise invalid(f"{at}.type", "is missing")
    return tools


def _namespace(tool: Mapping[str, Any], at: str, tools: Tools, ignored: Ignored) -> dict[str, Any]:
    name, inner = text_of(tool, "name", at), []
    for index, member in enumerate(objects(tool.get("tools"), f"{at}.tools", MAX_TOOLS)):
        where = f"{at}.tools[{index}]"
        if member.get("type") not in _CALLED:
            ignored.add(f"{where} ({member.get('type')})")
            continue
        tools.add(member, where, name)
        inner.append(_shown(member))
    return {"type": "namespace", "name": name, "description": tool.get("description") or "", "tools": inner}


def _shown(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool as the answer repeats it; a function's fields are all there, as the SDK's types want them."""
    if tool["type"] != "function":
        return dict(tool)
    return {"description": None, "parameters": None, "strict": None, **tool}


def _function(tool: Mapping[str, Any], name: str, at: str) -> dict[str, Any]:
    parameters = tool.get("parameters")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise invalid(f"{at}.parameters", "expected an object")
    function: dict[str, Any] = {"name": name}
    function |= {
        key: tool[key] for key in ("description", "parameters", "strict") if tool.get(key) is not None
    }
    return function


def _custom_function(tool: Mapping[str, Any], name: str, at: str) -> dict[str, Any]:
    """The grammar of a custom tool is told to the model: inside of a JSON text it cannot be enforced."""
    form = tool.get("format")
    lines = [tool["description"]] if isinstance(tool.get("description"), str) else []
    if isinstance(form, Mapping) and form.get("type") == "grammar":
        syntax, definition = (
            text_of(form, "syntax", f"{at}.format"),
            text_of(form, "definition", f"{at}.format"),
        )
        lines.append(f"The input has to follow this {syntax} grammar:\n{definition}")
    argument = {"type": "string", "description": "The whole input of the tool, as it is."}
    parameters = {"type": "object", "properties": {_INPUT: argument}, "required": [_INPUT]}
    return {
        "name": name,
        "description": "\n\n".join(lines),
        "parameters": {**parameters, "additionalProperties": False},
    }


def read_choice(value: Any, tools: Tools) -> tuple[dict[str, Any], Any]:
    """tool_choice → (chat's fields, the choice as the answer repeats it). Raises UserError 400."""
    if value is None or isinstance(value, str):
        word = choice_of({"tool_choice": value}, "tool_choice", "tool_choice", ("none", "auto", "required"))
        if word == "required" and not tools.functions:
            raise invalid("tool_choice", "asks for a tool, and there is none that the client runs")
        return {} if word is None or not tools.functions else {"tool_choice": word}, word or "auto"
    wanted = table_of({"tool_choice": value}, "tool_choice")
    kind = wanted.get("type")
    if kind in _CALLED:
        return {"tool_choice": _named(wanted, tools, "tool_choice")}, dict(wanted)
    if kind == "allowed_tools":
        return _allowed(wanted, tools), dict(wanted)
    raise unsupported("tool_choice", "can name tools of type function and custom only")


def _named(wanted: Mapping[str, Any], tools: Tools, where: str) -> dict[str, Any]:
    name = flat_name(wanted.get("namespace"), text_of(wanted, "name", where))
    if name not in tools.origins:
        raise invalid(f"{where}.name", f"there is no tool {name[:60]!r} that the client runs")
    return {"type": "function", "function": {"name": name}}


def _allowed(wanted: Mapping[str, Any], tools: Tools) -> dict[str, Any]:
    """A subset of the tools: the others are left out of the prompt."""
    mode = choice_of(wanted, "mode", "tool_choice.mode", ("auto", "required"))
    listed = objects(wanted.get("tools"), "tool_choice.tools", MAX_TOOLS)
    names = {
        _named(tool, tools, f"tool_choice.tools[{index}]")["function"]["name"]
        for index, tool in enumerate(listed)
        if tool.get("type") in _CALLED
    }
    tools.functions = [tool for tool in tools.functions if tool["function"]["name"] in names]
    if mode == "required" and not tools.functions:
        raise invalid("tool_choice", "asks for a tool, and there is none that the client runs")
    return {"tool_choice": mode or "auto"} if tools.functions else {}
