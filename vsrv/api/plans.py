"""How an answer's text is read: decided where the request is prepared, carried out where its tokens arrive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vsrv.text.answer import AnswerReader
from vsrv.text.detokenizer import Detokenizer, TextOptions
from vsrv.text.reasoning import FORMATS as REASONING_FORMATS
from vsrv.text.reasoning import ReasoningSplitter
from vsrv.text.tokenizer import Tokenizer
from vsrv.text.tools import FORMATS as TOOL_FORMATS
from vsrv.text.tools import ToolScanner

Types = tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """Calls are looked for in the format `form`; `types` are those of each tool's parameters (see tool_bodies.Tools).

    `finish` is the finish reason of an answer that ends with calls. `legacy`: they were asked for as `functions`.
    """

    form: str
    types: Types
    parallel: bool
    finish: str
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class ReasoningPlan:
    """Thinking comes before the answer, or may. `inside`: the prompt has opened it; `shown`: clients see it;
    `calls`: marks that end it too."""

    form: str
    inside: bool
    shown: bool = True
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadingPlan:
    tools: ToolPlan | None = None
    reasoning: ReasoningPlan | None = None

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> ReadingPlan:
        tools, reasoning = table["tools"], table["reasoning"]
        if tools is not None:
            types = tuple((name, tuple((key, kind) for key, kind in row)) for name, row in tools["types"])
            tools = ToolPlan(**{**tools, "types": types})
        if reasoning is not None:
            reasoning = ReasoningPlan(**{**reasoning, "calls": tuple(reasoning["calls"])})
        return cls(tools, reasoning)

    @property
    def marks(self) -> tuple[str, ...]:
        """Texts that must be seen although they may be control tokens."""
        tools = () if self.tools is None else TOOL_FORMATS[self.tools.form].marks
        return tools if self.reasoning is None else (*tools, *REASONING_FORMATS[self.reasoning.form].marks)

    def reader(self, tokenizer: Tokenizer, options: TextOptions, after: int) -> AnswerReader:
        """For one choice, whose prompt ends with the token `after`."""
        text = Detokenizer(tokenizer, options, after)
        scanner = splitter = None
        if self.tools is not None:
            types = {name: dict(row) for name, row in self.tools.types}
            scanner = ToolScanner(TOOL_FORMATS[self.tools.form], types, self.tools.parallel)
        tags: list[int] = []
        ends: list[int] = []
        if self.reasoning is not None:
            form = REASONING_FORMATS[self.reasoning.form]
            splitter = ReasoningSplitter(form, self.reasoning.inside, self.reasoning.calls)
            ends = tokenizer.single_tokens((*form.ends, *self.reasoning.calls))
            tags = [*tokenizer.single_tokens(form.begins), *ends]
        return AnswerReader(text, splitter, scanner, frozenset(tags), frozenset(ends))
