"""What the output must look like → a grammar as text, the form that `SamplingParams.grammar` carries, and its check.

A grammar is what `llguidance.LLMatcher` takes: Lark text with llguidance's extensions (`%json {…}` embeds a schema, `<|name|>` is a
special token), or `{"grammars": […]}`, whose first entry is the start and whose others are named. Building one costs nothing and never
fails on contents; `GrammarChecker.check` compiles it under `GRAMMAR_LIMITS` and belongs into a process that can be killed (rule R16).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llguidance
from llguidance.gbnf_to_lark import gbnf_to_lark

from vsrv.errors import VsrvError
from vsrv.messages import GRAMMAR_LIMITS
from vsrv.text import json_schema

MAX_GRAMMAR_CHARACTERS = 64 * 1024
MAX_REGEX_CHARACTERS = 1024
MAX_CHOICES = 1024
_MAX_PASSED = 256  # grammars known to be good
_MAX_MESSAGE_CHARACTERS = 300
MAX_NESTED = 100  # nested brackets; the regex and grammar parsers recurse
# a few blanks, or a line break with what indents the next line: without bounds a model may write blanks until max_tokens
_WHITESPACE = r"[ \t]{1,4}|[ \t]{0,4}\r?\n[ \t]{0,40}"
MAX_RULES = (
    1000  # of a client's grammar: the library follows a chain of some thousands to the end of its stack
)
_MAX_OPERATORS = 16  # & and ~ of terminals: each may double the work
# blanks of one line only: across lines, every line of many empty ones would be a new beginning of all that follow
_RULE = re.compile(
    r"^[^\S\n]*[?!]?[A-Za-z_][\w-]*(?:\.-?\d+)?(?:\[[^\]\n]*\]|\{[^}\n]*\}|::\w+)*\s*(?:::=|:)", re.MULTILINE
)
_EBNF = re.compile(r"^[^\S\n]*[A-Za-z_][\w-]*[^\S\n]*::=", re.MULTILINE)
_EMBEDDED = re.compile(r"%json\s*(?=\{)")
_IGNORED_OPTION = re.compile(r"^[^\S\n]*[a-z_][\w-]*\[[^\]\n]*\btemperature\s*=", re.MULTILINE)


class GrammarError(VsrvError):
    """A constraint that cannot be honoured. code: "invalid_grammar" or "unsupported_schema"; the message is written for the client."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class JsonStyle:
    """Where JSON may have whitespace: nowhere with `compact`, else where and as `whitespace` (a regex) allows it."""

    compact: bool = False
    whitespace: str = _WHITESPACE


def of_schema(schema: Any, style: JsonStyle | None = None) -> str:
    """JSON schema (object, true or false) → grammar of exactly the documents that it allows. Raises GrammarError."""
    return json.dumps({"grammars": [{"json_schema": _checked_schema(schema, style or JsonStyle())}]})


def of_any_object(style: JsonStyle | None = None) -> str:
    """Any JSON object."""
    return of_schema({"type": "object"}, style)


def json_rule(schema: Any, style: JsonStyle | None = None) -> str:
    """JSON schema → the text of a Lark expression, for grammars in which JSON is a part. Raises GrammarError."""
    return "%json " + json.dumps(_checked_schema(schema, style or JsonStyle()))


def of_regex(pattern: str) -> str:
    """A regular expression that the whole output matches. Raises GrammarError."""
    check_regex(pattern)
    return llguidance.LLMatcher.grammar_from_regex(pattern)


def of_choice(choices: Sequence[str]) -> str:
    """One of the texts, verbatim."""
    return "start: " + " | ".join(lark_text(choice) for choice in choices)


def of_grammar(text: str) -> str:
    """A client's grammar, Lark or EBNF as llama.cpp's GBNF (`root ::= …`). Raises GrammarError."""
    if len(text) > MAX_GRAMMAR_CHARACTERS:
        raise GrammarError("invalid_grammar", f"longer than {MAX_GRAMMAR_CHARACTERS} characters")
    if text.lstrip().startswith("{"):
        raise GrammarError("invalid_grammar", "expected Lark or EBNF text, not JSON")
    if _nesting(text) > MAX_NESTED:
        raise GrammarError("invalid_grammar", f"more than {MAX_NESTED} nested brackets")
    if len(_RULE.findall(text)) > MAX_RULES:
        raise GrammarError("invalid_grammar", f"more than {MAX_RULES} rules")
    if _EBNF.search(text):
        try:
            return gbnf_to_lark(text)
        except RecursionError:
            raise GrammarError("invalid_grammar", "the rules are nested too deeply") from None
        except Exception as error:  # the converter raises plain Exception for everything
            raise GrammarError("invalid_grammar", _short(str(error))) from None
    if text.count("&") + text.count("~") > _MAX_OPERATORS:
        raise GrammarError("invalid_grammar", f"more than {_MAX_OPERATORS} times & or ~")
    if _IGNORED_OPTION.search(text):
        raise GrammarError("invalid_grammar", "temperature= of a rule is not supported")
    return _with_checked_schemas(text)


def _with_checked_schemas(text: str) -> str:
    """A client's Lark text, its embedded schemas held to the same rules as any other."""
    parts, at = [], 0
    for found in _EMBEDDED.finditer(text):
        if found.start() < at:
            continue  # inside a schema
        try:
            schema, end = json.JSONDecoder().raw_decode(text, found.end())
        except (ValueError, RecursionError):
            raise GrammarError("invalid_grammar", "%json is not followed by a JSON schema") from None
        parts += [text[at : found.start()], json_rule(schema)]
        at = end
    return "".join([*parts, text[at:]])


def after_reasoning(
    grammar: str,
    begin: str,
    end: str,
    special: Mapping[str, int],
    budget: int | None = None,
    stops: Sequence[int] = (),
) -> str:
    """`grammar` for the answer that follows free thinking: tokens up to `end`, a little whitespace, then the answer; "" for any answer.

    begin: the tag that opens the thinking if the model may write it, and may then leave the thinking out altogether; "" if the prompt
    has opened it already. end: the tag that closes it. `special`: the tokenizer's special tokens with their ids; tags among these are
    matched as tokens, and only then can the thinking be held to `budget` tokens. `stops` would end the output and are no thoughts.
    Raises GrammarError.
    """
    if budget is not None and (end not in special or (begin and begin not in special)):
        raise GrammarError(
            "invalid_grammar", f"{end!r} is not one token of this model: its thinking has no budget"
        )
    answer, named = "<[*]>*", []
    if grammar:
        entries = json.loads(grammar)["grammars"] if grammar.startswith("{") else [{"lark_grammar": grammar}]
        answer, named = "@vsrv_answer", [{**entries[0], "name": "vsrv_answer"}, *entries[1:]]
    if end in special:
        others = ",".join(str(token) for token in sorted({special[end], *stops}))
        most = "*" if budget is None else f"{{0,{budget}}}"
        thoughts = "" if budget == 0 else f"<[^{others}]>{most}"
        rules = f"thought: {thoughts} <[{special[end]}]>"
    else:
        rules = f"thought[suffix={lark_text(end)}]: /(?s:.*)/"
    thinking = "thought BLANK? answer"
    if not begin:
        start = thinking
    elif grammar:
        start = f"{lark_literal(begin, special)} {thinking} | answer"
    else:  # any answer, but not one that begins with thinking
        start = f"({lark_literal(begin, special)} {thinking} | <[^{special[begin]}]> answer)?"
    outer = f"start: {start}\nanswer: {answer}\n{rules}\nBLANK: /[ \\t\\r\\n]{{1,8}}/"
    return json.dumps({"grammars": [{"lark_grammar": outer}, *named]})


def lark_text(text: str) -> str:
    """A text as a Lark string literal."""
    return json.dumps(text)


def lark_literal(text: str, special: Mapping[str, int]) -> str:
    """A text as a Lark expression in which the special tokens that it spells are tokens, as in a rendered template.

    special: names of the tokenizer's special tokens, and their ids.
    """
    spelled = sorted((name for name in special if name and name in text), key=len, reverse=True)
    if not spelled:
        return lark_text(text)
    pieces = re.split(f"({'|'.join(map(re.escape, spelled))})", text)
    return " ".join(f"<[{special[p]}]>" if p in special else lark_text(p) for p in pieces if p)


def check_regex(pattern: str) -> None:
    """Raises GrammarError for a regular expression that cannot be honoured."""
    fault = regex_fault(pattern)
    if fault:
        raise GrammarError("invalid_grammar", fault)


def regex_fault(pattern: str) -> str:
    """What is wrong with a regular expression, "" if nothing is: bounded length and nesting, no look-around, no back-references."""
    if not pattern or len(pattern) > MAX_REGEX_CHARACTERS or "\0" in pattern:
        return f"a regular expression needs 1 to {MAX_REGEX_CHARACTERS} characters, none of them NUL"
    if _nesting(pattern) > MAX_NESTED:
        return f"more than {MAX_NESTED} nested brackets"
    grammar = llguidance.LLMatcher.grammar_from_regex(pattern)
    failed, messages = llguidance.LLMatcher.validate_grammar_with_warnings(grammar, limits=limits())
    return _short(messages[0]) if failed else ""


def limits() -> llguidance.LLParserLimits:
    return llguidance.LLParserLimits(**GRAMMAR_LIMITS)


class GrammarChecker:
    """Compiles grammars for one model, to find out whether they can be. Owned by one thread of a process that can be killed.

    compact, closed: the server's own wishes for JSON, whatever a request says: no whitespace, no properties that a schema does not list.
    """

    def __init__(
        self, folder: Path, special: Mapping[str, int], compact: bool = False, closed: bool = False
    ) -> None:
        self.special = special  # tokens, by their names
        self.compact, self.closed = compact, closed
        self._file = folder / "tokenizer.json"
        self._tokenizer: llguidance.LLTokenizer | None = None  # 100 MB and a second for a large vocabulary
        self._passed: OrderedDict[bytes, None] = OrderedDict()  # hashes of grammars

    def check(self, grammar: str) -> None:
        """Raises GrammarError when the engine could not build `grammar`, or when nothing could match it."""
        name = hashlib.sha256(grammar.encode()).digest()
        if name not in self._passed:
            self._compile(grammar)
        self._passed[name] = None
        self._passed.move_to_end(name)
        if len(self._passed) > _MAX_PASSED:
            self._passed.popitem(last=False)

    def _compile(self, grammar: str) -> None:
        if self._tokenizer is None:
            try:
                self._tokenizer = llguidance.LLTokenizer(self._file.read_text(), eos_token=None)
            except (ValueError, OSError):
                raise GrammarError(
                    "invalid_grammar", "this model's tokenizer cannot be used with grammars"
                ) from None
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits())
        if not matcher.is_error():
            allowed = matcher.compute_bitmask()
        if matcher.is_error():
            raise GrammarError("invalid_grammar", _short(matcher.get_error()))
        if not any(allowed):
            raise GrammarError("invalid_grammar", "nothing can match this")


def _checked_schema(schema: Any, style: JsonStyle) -> dict[str, Any]:
    try:
        checked = json_schema.checked(schema, regex_fault)
    except json_schema.SchemaError as error:
        raise GrammarError("unsupported_schema", str(error)) from None
    options: dict[str, Any] = (
        {"whitespace_flexible": False} if style.compact else {"whitespace_pattern": style.whitespace}
    )
    return {**checked, "x-guidance": options}


def _nesting(text: str) -> int:
    """How deep brackets are nested, at most."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _short(message: str) -> str:
    """What of the library's message is for the client, on one line: its parser's state is not."""
    return " ".join(message.partition("\n<state>")[0].split())[:_MAX_MESSAGE_CHARACTERS]
