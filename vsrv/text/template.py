"""Chat templates: the model's Jinja program, in the immutable sandbox (rule R13), with a bound on its output.

Runs in the prepare child only: a template cannot be stopped from within, a process can.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from vsrv.errors import ConfigError, UserError

MAX_OUTPUT_CHARACTERS = 32 << 20


class _Generation(jinja2.ext.Extension):
    """{% generation %} … {% endgeneration %}: a training mark of Hugging Face templates that changes nothing here."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own protocol

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def load_tool_template_source(folder: Path, override: str | None) -> str | None:
    """The variant for requests with tools, where tokenizer_config.json names one, else None: the usual one serves them too."""
    if override or (folder / "chat_template.jinja").is_file():
        return None
    return _variant(tokenizer_config(folder).get("chat_template"), "tool_use")


def _variant(sources: Any, name: str) -> str | None:
    listed = [entry for entry in sources if isinstance(entry, dict)] if isinstance(sources, list) else []
    source = next((entry.get("template") for entry in listed if entry.get("name") == name), None)
    return source if isinstance(source, str) else None


def load_template_source(folder: Path, override: str | None) -> str | None:
    """The template's text: --chat-template (a file or the text itself), chat_template.jinja, tokenizer_config.json; else None."""
    if override:
        path = Path(override) if "{" not in override and "\n" not in override else None
        if path is not None:
            if not path.is_file():
                raise ConfigError(f"--chat-template {override}: no such file")
            return _read(path)
        return override
    if (folder / "chat_template.jinja").is_file():
        return _read(folder / "chat_template.jinja")
    config = tokenizer_config(folder)
    source = config.get("chat_template")
    # named variants: the one called default is for chat
    return source if isinstance(source, str) else _variant(source, "default")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, or nothing if it is not there. Raises ConfigError if it is broken."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return {}
    try:
        table = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    return table if isinstance(table, dict) else {}


def tokenizer_info(folder: Path, chat_template: str | None) -> dict[str, Any]:
    """What vLLM's /tokenizer_info tells: tokenizer_config.json, with the template that is in force. Raises ConfigError."""
    config = tokenizer_config(folder)
    source = load_template_source(folder, chat_template)
    known = {"tokenizer_class": config.get("tokenizer_class") or "PreTrainedTokenizerFast"}
    return config | known | ({} if source is None else {"chat_template": source})


def special_token_text(config: Mapping[str, Any], name: str) -> str | None:
    """bos_token and friends are a string or an object with `content`."""
    value = config.get(name)
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


class ChatTemplate:
    """A compiled template and the token texts that it may name. Raises ConfigError if it does not compile.

    `iterates_content`: it has a loop over the parts of a message's content, so it wants a list of them. `shows_tools`, `shows_documents`:
    it looks at those of a request. `with_tools` is the model's variant for requests that have some, None if this one serves them too.
    """

    def __init__(
        self, source: str, config: Mapping[str, Any], with_tools: ChatTemplate | None = None
    ) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        try:
            tree = environment.parse(source)
            self.iterates_content = _iterates_content(tree)
            names = {name.name for name in tree.find_all(jinja2.nodes.Name)}
            self.shows_tools, self.shows_documents = "tools" in names, "documents" in names
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, SyntaxError, RecursionError) as error:
            raise ConfigError(f"the chat template does not compile: {error}") from None
        self.source = source
        self.with_tools = with_tools
        self._tokens = {
            name: text
            for name in ("bos_token", "eos_token", "pad_token", "unk_token")
            if (text := special_token_text(config, name)) is not None
        }

    @property
    def for_tools(self) -> ChatTemplate:
        return self if self.with_tools is None else self.with_tools

    def render(
        self,
        messages: list[dict[str, Any]],
        variables: Mapping[str, Any],
        tools: list[dict[str, Any]] | None = None,
        documents: list[Any] | None = None,
    ) -> str:
        """Messages, tools and documents → prompt text. Raises UserError 400 when the template refuses them or its output grows too large."""
        parts: list[str] = []
        size = 0
        try:
            for part in self._template.generate(
                messages=messages, tools=tools, documents=documents, **self._tokens, **variables
            ):
                size += len(part)
                if size > MAX_OUTPUT_CHARACTERS:
                    raise UserError(
                        400,
                        "template_output_too_large",
                        "the chat template's output is too large",
                        "messages",
                    )
                parts.append(part)
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            reason = (
                str(error)
                if isinstance(error, jinja2.TemplateRuntimeError)
                else "it failed on these messages"
            )
            raise UserError(
                400, "template_error", f"the model's chat template refuses the messages: {reason}", "messages"
            ) from None
        return "".join(parts)


def _iterates_content(tree: jinja2.nodes.Template) -> bool:
    """Looks for `for … in message.content`, also by way of `set content = message.content`."""
    names = {
        node.target.name
        for node in tree.find_all(jinja2.nodes.Assign)
        if isinstance(node.target, jinja2.nodes.Name) and _is_content(node.node)
    }
    loops = [node.iter for node in tree.find_all(jinja2.nodes.For)]
    return any(
        _is_content(over) or (isinstance(over, jinja2.nodes.Name) and over.name in names) for over in loops
    )


def _is_content(node: jinja2.nodes.Node) -> bool:
    """`x.content` or `x['content']`, filters aside."""
    while isinstance(node, jinja2.nodes.Filter) and node.node is not None:
        node = node.node
    if isinstance(node, jinja2.nodes.Getattr):
        return node.attr == "content"
    key = node.arg if isinstance(node, jinja2.nodes.Getitem) else None
    return isinstance(key, jinja2.nodes.Const) and key.value == "content"


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers defines it: no HTML escaping, Unicode as it is."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateRuntimeError(str(message))
