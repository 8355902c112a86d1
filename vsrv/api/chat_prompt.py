"""A chat's messages and tools → its prompt, how its answer is read, and the grammar that the answer must follow."""

from __future__ import annotations

import json
import uuid
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vsrv.api.conversation import cut_after_last, last_text, template_messages
from vsrv.api.fields import Fields, invalid, unsupported
from vsrv.api.plans import ReadingPlan, ReasoningPlan
from vsrv.api.schema import ModelFacts
from vsrv.api.structured import ChildNeeded
from vsrv.api.tool_request import Tool, ToolRequest, marked_tools, marked_value, plan_of, read_tools
from vsrv.errors import UserError
from vsrv.text import reasoning, tool_prompt, tools
from vsrv.text.grammar import GrammarChecker, GrammarError, after_reasoning
from vsrv.text.template import ChatTemplate
from vsrv.text.tokenizer import Tokenizer
from vsrv.text.tool_grammar import CallGrammar, OfferedTool, check_schema, of_calls

_ANSWER, _CALLS = "vsrv_either", "vsrv_calls"


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """`text` is what the template made, with marks around what a user wrote; see Tokenizer.encode_marked."""

    text: str
    mark: str
    tools: ToolRequest | None
    reading: ReadingPlan


class ChatPrompter:
    """Owns the template of one process."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, facts: ModelFacts) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._facts = facts
        sources = [own.source for own in (template.with_tools, template) if own is not None]
        self._tool_form = _form(facts.tool_parser, sources, tools.ALIASES, tools.detect_format)
        self._reasoning_form = _form(
            facts.reasoning_parser, sources, reasoning.ALIASES, reasoning.detect_format
        )

    @property
    def described(self) -> str:
        """What is known of the model's ways, for operators."""
        calls = f"tool calls in the format {self._tool_form}" if self._tool_form else "no tool calls"
        thinks = f"thinking in the format {self._reasoning_form}" if self._reasoning_form else "no thinking"
        return f"{calls}, {thinks}"

    @property
    def keeps_budgets(self) -> bool:
        """Whether the model's thinking is known, and can be held to a number of tokens."""
        if not self._reasoning_form:
            return False
        form = reasoning.FORMATS[self._reasoning_form]
        return {form.begins[0], form.ends[0]} <= self._tokenizer.marks.keys()

    def prompt(self, fields: Fields) -> ChatPrompt:
        """Raises UserError 400 naming the field."""
        request = read_tools(fields)
        template = self._template if request is None else self._template.for_tools
        form = self._tool_format(request, template)
        mark = f"\ue000{uuid.uuid4().hex}\ue001"  # cannot be guessed, so it cannot be sent
        marked = lambda text: self._tokenizer.mark_special(text, mark)  # noqa: E731
        in_parts = {"openai": True, "string": False}.get(
            self._facts.content_format, template.iterates_content
        )
        messages = template_messages(fields["messages"], marked, in_parts)
        shown = None if request is None or self._hidden(request) else marked_tools(request.tools, marked)
        if shown is not None and not template.shows_tools and form is not None:
            messages, shown = tool_prompt.with_tools(messages, shown), None
        documents = _documents(fields, template, marked)
        text = self._rendered(fields, template, messages, shown, documents)
        text = text.replace(json.dumps(mark)[1:-1], mark)  # where a template has written it as ASCII JSON
        tool_plan = None if request is None or form is None else plan_of(request, form.name)
        thinking = self._thinking(fields, text, messages, form)
        return ChatPrompt(text, mark, request, ReadingPlan(tool_plan, thinking))

    def ids(self, prompt: ChatPrompt, add_special_tokens: bool) -> array[int]:
        ids = self._tokenizer.encode_marked(prompt.text, prompt.mark)
        return self._tokenizer.encode("", True) + ids if add_special_tokens else ids

    def grammar(self, fields: Fields, prompt: ChatPrompt, answer: str, checker: GrammarChecker | None) -> str:
        """What the whole output follows; `answer` is what the answer itself must be, "" for anything. Raises UserError or ChildNeeded."""
        budget: int | None = fields["thinking_token_budget"]
        budget = None if budget == -1 else budget
        if budget is not None and not self._reasoning_form:
            raise unsupported(
                "thinking_token_budget", "needs a model whose thinking is known: see --reasoning-parser"
            )
        constrained = prompt.tools is not None and self._constrains(prompt, answer)
        if not constrained and not answer and (budget is None or prompt.reading.reasoning is None):
            return ""
        if checker is None:
            raise ChildNeeded
        if constrained:
            answer = self._with_calls(prompt, answer)
        param = (
            "tools" if constrained else "thinking_token_budget" if budget is not None else "response_format"
        )
        try:
            grammar = self._after_thinking(prompt.reading.reasoning, answer, budget)
            checker.check(grammar)
        except GrammarError as error:
            raise UserError(400, error.code, f"{param}: {error.message}", param) from None
        return grammar

    def _constrains(self, prompt: ChatPrompt, answer: str) -> bool:
        """Whether the grammar has to know of calls."""
        request = prompt.tools
        if request is None or request.choice.mode == "none":
            return False
        always = self._facts.tool_strict_level in ("function", "parameter")
        return always or request.choice.mode == "required" or request.constrained or bool(answer)

    def _with_calls(self, prompt: ChatPrompt, answer: str) -> str:
        """Calls alone where they are required, else beside the answer. Raises UserError."""
        request = prompt.tools
        assert request is not None and prompt.reading.tools is not None
        required = request.choice.mode == "required"
        own = required or request.constrained or self._facts.tool_strict_level == "parameter"
        names_only = not own and self._facts.tool_strict_level == "function"
        wanted = CallGrammar(
            tools.FORMATS[prompt.reading.tools.form],
            [self._offered(tool, names_only) for tool in request.choice.allowed],
            self._tokenizer.marks,
            self._template.for_tools.source,
            required or bool(answer),
            request.parallel and not request.choice.named,
        )
        calls = of_calls(wanted)
        return calls if required or not answer else _either(answer, calls)

    def _offered(self, tool: Tool, name_only: bool) -> OfferedTool:
        """A schema that grammars cannot hold is an error where `strict` asks for it; elsewhere any object will do."""
        if name_only:
            return OfferedTool(tool.name, {"type": "object"})
        try:
            check_schema(tool.parameters)
        except GrammarError as error:
            if tool.strict:
                message = f"tools: the parameters of {tool.name}: {error.message}"
                raise UserError(400, "unsupported_schema", message, "tools") from None
            return OfferedTool(tool.name, {"type": "object"})
        return OfferedTool(tool.name, tool.parameters)

    def _after_thinking(self, plan: ReasoningPlan | None, answer: str, budget: int | None) -> str:
        if plan is None:
            return answer
        form = reasoning.FORMATS[plan.form]
        begin = "" if plan.inside or form.always else form.begins[0]
        eos = () if self._facts.eos_token_id is None else (self._facts.eos_token_id,)
        stops = (*eos, *self._facts.extra_stop_ids)
        return after_reasoning(answer, begin, form.ends[0], self._tokenizer.marks, budget, stops)

    def _tool_format(self, request: ToolRequest | None, template: ChatTemplate) -> tools.ToolFormat | None:
        """The format to look for, None if calls are no matter. Raises UserError where they cannot be had."""
        if request is None or request.choice.mode == "none":
            return None
        param = "functions" if request.legacy else "tools"
        if not self._tool_form:
            message = "are not supported: this model's chat template does not tell how it writes calls; see --tool-call-parser"
            raise unsupported(param, message)
        if not template.shows_tools and self._tool_form != tool_prompt.FORM:
            message = f"are not supported: this model's chat template has no place for them; start with --tool-call-parser {tool_prompt.FORM}"
            raise unsupported(param, message)
        return tools.FORMATS[self._tool_form]

    def _hidden(self, request: ToolRequest) -> bool:
        return self._facts.hide_unused_tools and request.choice.mode == "none"

    def _rendered(
        self,
        fields: Fields,
        template: ChatTemplate,
        messages: list[dict[str, Any]],
        shown: list[dict[str, Any]] | None,
        documents: list[Any] | None,
    ) -> str:
        add, resume = fields["add_generation_prompt"], fields["continue_final_message"]
        if resume and add and fields.has("add_generation_prompt"):
            raise invalid("continue_final_message", "cannot be true together with add_generation_prompt")
        variables = {**self._variables(fields), "add_generation_prompt": add and not resume}
        text = template.render(messages, variables, shown, documents)
        return cut_after_last(text, messages) if resume else text

    def _variables(self, fields: Fields) -> dict[str, Any]:
        """Template variables of the server and of the request."""
        given = fields["chat_template_kwargs"] or {}
        defaults, effort = self._facts.template_variables, fields["reasoning_effort"]
        if effort is None:
            return {**defaults, **given}
        thinking = effort != "none"  # what most templates look at; the request may say otherwise
        return {**defaults, "enable_thinking": thinking, **given, "reasoning_effort": effort}

    def _thinking(
        self, fields: Fields, text: str, messages: list[dict[str, Any]], form: tools.ToolFormat | None
    ) -> ReasoningPlan | None:
        """Whether the output may begin with thinking: the end of the prompt tells, which is the template's own."""
        if not self._reasoning_form:
            return None
        row = reasoning.FORMATS[self._reasoning_form]
        if fields["continue_final_message"]:
            state = row.state_within(last_text(messages))
        else:
            state = row.state_after(text)
        if state is False:
            return None
        calls = form.opens if form is not None and row.until_calls else ()
        return ReasoningPlan(row.name, state is True, fields["include_reasoning"], calls)


def _form(asked: str, sources: list[str], aliases: Any, detect: Callable[[str], str]) -> str:
    """The row that an option names, or else the templates; "" for none."""
    if asked:
        return "" if asked == "none" else str(aliases.get(asked, asked))
    return next((found for source in sources if (found := detect(source))), "")


def _either(answer: str, calls: str) -> str:
    """Grammar of what either of two allows."""
    entries = json.loads(answer)["grammars"] if answer.startswith("{") else [{"lark_grammar": answer}]
    parts = [{**entries[0], "name": _ANSWER}, *entries[1:], {"lark_grammar": calls, "name": _CALLS}]
    return json.dumps({"grammars": [{"lark_grammar": f"start: @{_ANSWER} | @{_CALLS}"}, *parts]})


def _documents(
    fields: Fields, template: ChatTemplate, marked: Callable[[str], str]
) -> list[dict[str, str]] | None:
    """Texts for the template, each an object of texts such as title and text. Raises UserError where it shows none."""
    given = fields["documents"]
    if not given:
        return None
    if not template.shows_documents:
        raise unsupported("documents", "are not supported: this model's chat template shows none")
    for index, document in enumerate(given):
        texts = isinstance(document, dict) and 0 < len(document) <= 16
        if not texts or not all(isinstance(value, str) for value in document.values()):
            raise invalid(f"documents[{index}]", "expected an object of texts, such as title and text")
    shown: list[dict[str, str]] = marked_value(given, marked)
    return shown
