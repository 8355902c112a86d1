"""Body bytes → checked request and token ids. Synchronous and free of I/O: it runs in the front or in the prepare child."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from vsrv.api.chat_prompt import ChatPrompt, ChatPrompter
from vsrv.api.fields import Fields, invalid, parse_object, unsupported
from vsrv.api.plans import ReadingPlan
from vsrv.api.pooling_fields import POOLING
from vsrv.api.prepare_pooling import PoolingPreparer, PoolingRequest
from vsrv.api.schema import Common, GenerationRequest, ModelFacts, request_fields, request_of, too_long
from vsrv.api.structured import grammar_of
from vsrv.api.translation import AS_SENT, PLAIN, Style
from vsrv.api.translators import TRANSLATORS, Translator
from vsrv.errors import UserError
from vsrv.text.fill_in import FillIn, format_of, joined, stop_ids
from vsrv.text.grammar import GrammarChecker
from vsrv.text.template import ChatTemplate
from vsrv.text.tokenizer import Tokenizer

_MAX_BAD_WORD_IDS = 60


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the front needs to run a request; `limits` is max_tokens of each prompt.

    `told` is what a translated dialect's answer needs of its request.
    `prompt_texts` are filled for echo and return_prompt_text only. /tokenize has no request, and in `prompt_texts` the tokens' spellings if asked.
    """

    request: GenerationRequest | None
    prompts: list[array[int]]
    prompt_texts: list[str]
    limits: tuple[int, ...] = ()
    told: dict[str, Any] = field(default_factory=dict)
    pooling: PoolingRequest | None = None  # in the place of `request` where vectors are asked for

    @property
    def wanted(self) -> GenerationRequest | PoolingRequest:
        """What the engine is to do; there must be something."""
        wanted = self.request or self.pooling
        assert wanted is not None
        return wanted

    def to_frame(self) -> bytes:
        """u32 head size, JSON head, then every prompt's ids as u32."""
        head = orjson.dumps(
            {
                "request": None if self.request is None else self.request.to_json(),
                "lengths": [len(ids) for ids in self.prompts],
                "texts": self.prompt_texts,
                "limits": self.limits,
                "told": self.told,
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
        return cls(request, prompts, head["texts"], tuple(head["limits"]), head["told"], pooling)


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
        self._facts = facts
        self._prompter = None if template is None else ChatPrompter(tokenizer, template, facts)

    @property
    def described(self) -> str:
        """What chat will do with the model's tool calls and thinking, for operators."""
        return "no chat template" if self._prompter is None else self._prompter.described

    def prepare(self, dialect: str, body: bytes | bytearray) -> Prepared:
        """dialect: one of prepare_worker.DIALECTS. Raises UserError."""
        if dialect in TRANSLATORS:
            return self._translated(TRANSLATORS[dialect], body)
        fields = request_fields(parse_object(body), dialect, self._facts)
        if dialect in POOLING:
            inputs = PoolingPreparer(fields, self._tokenizer, self._facts).prepare(dialect)
            return Prepared(None, inputs.ids, inputs.texts, (0,), pooling=inputs.request)
        if dialect == "chat":
            return self._chat(fields)
        if dialect == "completions":
            return self._completions(fields)
        return self._tokenize(fields)

    def _translated(self, translator: Translator, body: bytes | bytearray) -> Prepared:
        """Another dialect's body by way of chat's; in plain form where the template refuses the conversation as it is."""
        fields = translator.fields(parse_object(body), self._facts)
        try:
            try:
                return self._by_chat(translator, fields, AS_SENT)
            except UserError as error:
                if error.code != "template_error":
                    raise
                return self._by_chat(translator, fields, PLAIN)
        except UserError as error:
            raise translator.restated(error, self._facts) from None

    def _by_chat(self, translator: Translator, fields: Fields, style: Style) -> Prepared:
        translated = translator.to_chat(fields, self._facts, style)
        if not self._chats.keeps_budgets:  # keeps every budget of thinking, which chat would refuse
            translated.chat.pop("thinking_token_budget", None)
        chat = request_fields(translated.chat, "chat", self._facts)
        if translator.prompt_only:
            return Prepared(None, [self._chat_prompt(chat)[1]], [])
        prepared = self._chat(chat)
        assert prepared.request is not None
        request = replace(prepared.request, unknown=translated.ignored)
        return replace(prepared, request=request, told=translated.told)

    def _chat(self, fields: Fields) -> Prepared:
        prompt, whole = self._chat_prompt(fields)
        ids = self._truncated(fields, whole)
        limits = (self._limit(len(ids), "messages", self._chat_wanted(fields)),)
        answer = grammar_of(fields, self._checker)
        grammar = self._chats.grammar(fields, prompt, answer, self._checker)
        request = request_of(self._common(fields, grammar, prompt.reading), "chat", limits)
        if not fields["return_prompt_text"]:
            return Prepared(request, [ids], [], limits)
        text = prompt.text.replace(prompt.mark, "")
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

    @property
    def _chats(self) -> ChatPrompter:
        """Raises UserError where the model has no template."""
        if self._prompter is None:
            raise UserError(
                400,
                "no_chat_template",
                "this model has no chat template: use /v1/completions, or start with --chat-template",
                "messages",
            )
        return self._prompter

    def _chat_prompt(self, fields: Fields) -> tuple[ChatPrompt, array[int]]:
        prompt = self._chats.prompt(fields)
        if len(prompt.text) > self._facts.longest_text and not fields.has("truncate_prompt_tokens"):
            raise self._too_long(f"far more than {self._facts.max_model_len}", "messages")
        return prompt, self._chats.ids(prompt, fields["add_special_tokens"] is True)

    def _completions(self, fields: Fields) -> Prepared:
        sent, texts = self._prompts(fields)
        fill_in = self._fill_in(fields)
        if fill_in is not None:
            sent = [joined(self._tokenizer, fill_in, ids, fields["suffix"]) for ids in sent]
        prompts = [self._truncated(fields, ids) for ids in sent]
        limits = tuple(self._limit(len(ids), "prompt", fields["max_tokens"]) for ids in prompts)
        common = self._common(fields, grammar_of(fields, self._checker))
        request = request_of(common, "completions", limits)
        if fill_in is not None:
            stops = (*request.params.stop_token_ids, *stop_ids(self._tokenizer, fill_in))
            request = replace(request, params=replace(request.params, stop_token_ids=stops))
        if len(prompts) * request.width > self._facts.max_prompts:
            raise invalid("prompt", f"prompts times n must not be above {self._facts.max_prompts}")
        if request.echo:  # what was cut away was not read, so it is not echoed either
            texts = [
                t if t is not None and len(ids) == len(whole) else self._tokenizer.decode(list(ids), False)
                for t, ids, whole in zip(texts, prompts, sent, strict=True)
            ]
        return Prepared(request, prompts, [t or "" for t in texts] if request.echo else [], limits)

    def _fill_in(self, fields: Fields) -> FillIn | None:
        """How this model is told of a suffix, where one was sent. Raises UserError."""
        if not fields["suffix"]:
            return None
        row = format_of(self._tokenizer)
        if row is None:
            raise unsupported("suffix", "is not supported: this model has no tokens for filling in")
        for name in ("echo", "truncate_prompt_tokens"):
            if fields[name]:
                raise invalid(name, "is not available together with suffix")
        return row

    def _prompts(self, fields: Fields) -> tuple[list[array[int]], list[str | None]]:
        """The id array of each prompt, and its text where text was sent."""
        if fields["prompt"] is None:
            raise invalid("prompt", "is missing or empty")
        add_special = fields["add_special_tokens"] is not False and not fields["suffix"]
        prompts: list[array[int]] = []
        texts: list[str | None] = []
        for item in fields["prompt"]:
            if not isinstance(item, str):
                prompts.append(array("I", item))
                texts.append(None)
                continue
            if len(item) > self._facts.longest_text:
                if not fields.has("truncate_prompt_tokens"):
                    raise self._too_long(f"far more than {self._facts.max_model_len}", "prompt")
                item = self._facts.readable(item, fields["truncation_side"])
            prompts.append(self._tokenizer.encode(item, add_special))
            texts.append(item)
        return prompts, texts

    def _tokenize(self, fields: Fields) -> Prepared:
        if fields.has("messages"):
            _, ids = self._chat_prompt(fields)
        elif fields.has("prompt"):
            ids = self._tokenizer.encode(fields["prompt"], fields["add_special_tokens"] is not False)
        else:
            raise invalid("prompt", "is missing: send prompt or messages")
        spelled = fields["return_token_strs"]
        return Prepared(None, [ids], [self._tokenizer.token_string(i) for i in ids] if spelled else [])

    def _common(self, fields: Fields, grammar: str, reading: ReadingPlan = ReadingPlan()) -> Common:  # noqa: B008
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
        return Common(fields, self._facts, tuple(words), grammar, reading)

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
        return too_long(self._facts, f"your prompt has {length}", param)
