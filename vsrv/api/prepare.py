"""Body bytes → checked request and token ids. Synchronous and free of I/O: it runs in the front or in the prepare child."""

from __future__ import annotations

import struct
import uuid
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from vsrv.api.fields import Fields, invalid, parse_object
from vsrv.api.pooling_fields import POOLING
from vsrv.api.prepare_pooling import PoolingPreparer, PoolingRequest
from vsrv.api.schema import Common, GenerationRequest, ModelFacts, request_fields, request_of
from vsrv.api.structured import grammar_of
from vsrv.errors import UserError
from vsrv.text.grammar import GrammarChecker
from vsrv.text.template import ChatTemplate
from vsrv.text.tokenizer import Tokenizer

_MAX_BAD_WORD_IDS = 60


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the front needs to run a request; `limits` is max_tokens of each prompt.

    `prompt_texts` are filled for echo and return_prompt_text only. /tokenize has no request, and in `prompt_texts` the tokens' spellings if asked.
    """

    request: GenerationRequest | None
    prompts: list[array[int]]
    prompt_texts: list[str]
    limits: tuple[int, ...] = ()
    pooling: PoolingRequest | None = None  # in the place of `request` where vectors are asked for

    def to_frame(self) -> bytes:
        """u32 head size, JSON head, then every prompt's ids as u32."""
        head = orjson.dumps(
            {
                "request": None if self.request is None else self.request.to_json(),
                "lengths": [len(ids) for ids in self.prompts],
                "texts": self.prompt_texts,
                "limits": self.limits,
                "pooling": None if self.pooling is None else self.pooling.to_json(),
            }
        )
        return struct.pack("<I", len(head)) + head + b"".join(ids.tobytes() for ids in self.prompts)

    @classmethod
    def from_frame(cls, data: bytes) -> Prepared:
        (size,) = struct.unpack_from("<I", data)
        head = orjson.loads(data[4 : 4 + size])
        ids = array("I")
        ids.frombytes(data[4 + size :])
        prompts, start = [], 0
        for length in head["lengths"]:
            prompts.append(ids[start : start + length])
            start += length
        request = None if head["request"] is None else GenerationRequest.from_json(head["request"])
        pooling = None if head["pooling"] is None else PoolingRequest.from_json(head["pooling"])
        return cls(request, prompts, head["texts"], tuple(head["limits"]), pooling)


class Preparer:
    """Owns tokenizer and template of one process."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        facts: ModelFacts,
        checker: GrammarChecker | None = None,
    ) -> None:
        """`checker`: for a process that can be killed; without it a request with a grammar raises ChildNeeded."""
        self._checker = checker
        self._tokenizer = tokenizer
        self._template = template
        self._facts = facts
        wanted = template is not None and template.iterates_content
        self._in_parts = {"openai": True, "string": False}.get(facts.content_format, wanted)

    def prepare(self, dialect: str, body: bytes | bytearray) -> Prepared:
        """dialect: a key of REQUESTS. Raises UserError."""
        fields = request_fields(parse_object(body), dialect, self._facts)
        if dialect in POOLING:
            inputs = PoolingPreparer(fields, self._tokenizer, self._facts).prepare(dialect)
            return Prepared(None, inputs.ids, inputs.texts, (0,), inputs.request)
        if dialect == "chat":
            return self._chat(fields)
        if dialect == "completions":
            return self._completions(fields)
        return self._tokenize(fields)

    def _chat(self, fields: Fields) -> Prepared:
        whole, text = self._chat_ids(fields)
        ids = self._truncated(fields, whole)
        limits = (self._limit(len(ids), "messages", self._chat_wanted(fields)),)
        request = request_of(self._common(fields), "chat", limits)
        if not fields["return_prompt_text"]:
            return Prepared(request, [ids], [], limits)
        text = text if len(ids) == len(whole) else self._tokenizer.decode(list(ids), False)
        return Prepared(request, [ids], [text], limits)

    def _chat_wanted(self, fields: Fields) -> int | None:
        """What a chat asked for, else the model's own default. Only what was asked for can be too much."""
        name = "max_completion_tokens" if fields.has("max_completion_tokens") else "max_tokens"
        wanted: int | None = fields[name]
        if wanted is not None and wanted > self._facts.max_model_len:
            raise invalid(
                name, f"{wanted} is above the model's context of {self._facts.max_model_len} tokens"
            )
        return self._facts.defaults.max_tokens if wanted is None else wanted

    def _chat_ids(self, fields: Fields) -> tuple[array[int], str]:
        """Messages → ids, and the text that the template made."""
        if self._template is None:
            raise UserError(
                400,
                "no_chat_template",
                "this model has no chat template: use /v1/completions, or start with --chat-template",
                "messages",
            )
        mark = f"\ue000{uuid.uuid4().hex}\ue001"  # cannot be guessed, so it cannot be sent
        messages = _messages(
            fields["messages"], lambda text: self._tokenizer.mark_special(text, mark), self._in_parts
        )
        add = fields["add_generation_prompt"]
        resume = fields["continue_final_message"]
        if resume and add and fields.has("add_generation_prompt"):
            raise invalid("continue_final_message", "cannot be true together with add_generation_prompt")
        variables = self._variables(fields)
        text = self._template.render(messages, {**variables, "add_generation_prompt": add and not resume})
        if resume:
            text = _cut_after_last(text, messages)
        if len(text) > self._facts.longest_text and not fields.has("truncate_prompt_tokens"):
            raise self._too_long(f"far more than {self._facts.max_model_len}", "messages")
        ids = self._tokenizer.encode_marked(text, mark)
        if fields["add_special_tokens"]:
            ids = self._tokenizer.encode("", True) + ids
        return ids, text.replace(mark, "")

    def _variables(self, fields: Fields) -> dict[str, Any]:
        """Template variables of the server and of the request."""
        given = fields["chat_template_kwargs"] or {}
        defaults, effort = self._facts.template_variables, fields["reasoning_effort"]
        if effort is None:
            return {**defaults, **given}
        thinking = effort != "none"  # what most templates look at; the request may say otherwise
        return {**defaults, "enable_thinking": thinking, **given, "reasoning_effort": effort}

    def _completions(self, fields: Fields) -> Prepared:
        sent, texts = self._prompts(fields)
        prompts = [self._truncated(fields, ids) for ids in sent]
        limits = tuple(self._limit(len(ids), "prompt", fields["max_tokens"]) for ids in prompts)
        request = request_of(self._common(fields), "completions", limits)
        if len(prompts) * request.n > self._facts.max_prompts:
            raise invalid("prompt", f"prompts times n must not be above {self._facts.max_prompts}")
        if request.echo:  # what was cut away was not read, so it is not echoed either
            texts = [
                t if t is not None and len(ids) == len(whole) else self._tokenizer.decode(list(ids), False)
                for t, ids, whole in zip(texts, prompts, sent, strict=True)
            ]
        return Prepared(request, prompts, [t or "" for t in texts] if request.echo else [], limits)

    def _prompts(self, fields: Fields) -> tuple[list[array[int]], list[str | None]]:
        """The id array of each prompt, and its text where text was sent."""
        if fields["prompt"] is None:
            raise invalid("prompt", "is missing or empty")
        add_special = fields["add_special_tokens"] is not False
        prompts: list[array[int]] = []
        texts: list[str | None] = []
        for item in fields["prompt"]:
            if not isinstance(item, str):
                prompts.append(array("I", item))
                texts.append(None)
                continue
            if len(item) > self._facts.longest_text and not fields.has("truncate_prompt_tokens"):
                raise self._too_long(f"far more than {self._facts.max_model_len}", "prompt")
            prompts.append(self._tokenizer.encode(item, add_special))
            texts.append(item)
        return prompts, texts

    def _tokenize(self, fields: Fields) -> Prepared:
        if fields.has("messages"):
            ids, _ = self._chat_ids(fields)
        elif fields.has("prompt"):
            ids = self._tokenizer.encode(fields["prompt"], fields["add_special_tokens"] is not False)
        else:
            raise invalid("prompt", "is missing: send prompt or messages")
        spelled = fields["return_token_strs"]
        return Prepared(None, [ids], [self._tokenizer.token_string(i) for i in ids] if spelled else [])

    def _common(self, fields: Fields) -> Common:
        words: list[tuple[int, ...]] = []
        for word in fields["bad_words"]:
            plain = tuple(self._tokenizer.encode(word.lstrip() or word, False))
            spaced = tuple(self._tokenizer.encode(" " + word.lstrip(), False))
            # the form after a space counts only if it is the same word written with one other first token
            both = {plain, spaced} if len(plain) == len(spaced) and plain[:1] != spaced[:1] else {plain}
            words += sorted(both)
        if (
            any(len(word) > _MAX_BAD_WORD_IDS for word in words)
            or sum(len(word) + 1 for word in words) > 2000
        ):
            raise invalid("bad_words", "the words have too many tokens")
        return Common(fields, self._facts, tuple(words), grammar_of(fields, self._checker))

    def _truncated(self, fields: Fields, ids: array[int]) -> array[int]:
        length = self._facts.max_model_len
        keep = fields["truncate_prompt_tokens"]
        if keep is None:
            return ids
        keep = length - 1 if keep == -1 else keep
        if fields["truncation_side"] == "right":
            return ids[:keep]
        return ids[len(ids) - keep :] if keep < len(ids) else ids

    def _limit(self, length: int, param: str, wanted: int | None) -> int:
        """max_tokens of a prompt of `length`: what is wanted, the server's cap and the room. Raises UserError."""
        room = self._room(length, param, wanted)
        cap = self._facts.defaults.max_tokens_cap
        return min(limit for limit in (room, wanted, cap) if limit is not None)

    def _room(self, length: int, param: str, wanted: int | None) -> int:
        """Tokens that may follow a prompt of `length`. Raises UserError context_length_exceeded."""
        room = self._facts.max_model_len - length
        if length == 0:
            raise invalid(param, "the prompt has no tokens")
        if room < 0 or (room == 0 and wanted != 0):
            raise self._too_long(str(length), param)
        return room

    def _too_long(self, length: str, param: str) -> UserError:
        limit = self._facts.max_model_len
        message = f"This model's maximum context length is {limit} tokens. However, your prompt has {length} tokens. Shorten the {param}."
        return UserError(400, "context_length_exceeded", message, param)


def _messages(value: Any, marked: Callable[[str], str], in_parts: bool) -> list[dict[str, Any]]:
    """OpenAI messages → what templates expect: role and content, user strings marked. Raises UserError 400.

    Content is a list of text parts with `in_parts`, else one text.
    """
    if not value:
        raise invalid("messages", "expected a list of at least one message")
    messages = []
    for index, message in enumerate(value):
        where = f"messages[{index}]"
        if (
            not isinstance(message, Mapping)
            or not isinstance(message.get("role"), str)
            or not 0 < len(message["role"]) <= 64
        ):
            raise invalid(where, "expected an object with a role")
        role = "system" if message["role"] == "developer" else message["role"]
        entry: dict[str, Any] = {
            "role": marked(role),
            "content": _content(_texts_of(message.get("content"), where), marked, in_parts),
        }
        for name in ("name", "tool_call_id", "reasoning_content", "reasoning"):
            if isinstance(message.get(name), str):
                entry[name] = marked(message[name])
        if message.get("tool_calls"):
            raise UserError(
                400,
                "unsupported_parameter",
                "tool calls are not supported by this version of vsrv",
                f"{where}.tool_calls",
            )
        messages.append(entry)
    return messages


def _content(texts: list[str], marked: Callable[[str], str], in_parts: bool) -> str | list[dict[str, str]]:
    if in_parts:
        return [{"type": "text", "text": marked(text)} for text in texts]
    return marked("\n".join(texts))


def _texts_of(content: Any, where: str) -> list[str]:
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise invalid(f"{where}.content", "expected text or a list of parts")
    texts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in ("text", "input_text") and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            texts.append(part["refusal"])
        elif isinstance(kind, str) and kind not in ("text", "input_text", "refusal"):
            raise UserError(
                400,
                "unsupported_parameter",
                f"content of type {kind[:40]!r} is not supported: text only",
                f"{where}.content",
            )
        else:
            raise invalid(f"{where}.content", "each part needs a type and its text")
    return texts


def _cut_after_last(text: str, messages: list[dict[str, Any]]) -> str:
    """continue_final_message: the prompt ends with the last message's own text."""
    content = messages[-1]["content"]
    if isinstance(content, list):
        content = content[-1]["text"] if content else ""
    content = content.rstrip()
    at = text.rfind(content) if content else -1
    if at < 0:
        raise invalid("continue_final_message", "the template does not end with the last message's text")
    return text[: at + len(content)]
