"""Request bodies → checked values. Every number is bounded, every refusal names its field; unknown fields are ignored.

What vsrv does not do and what would change the answer is refused (`unsupported_parameter`), never dropped in silence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from vsrv.errors import UserError
from vsrv.messages import SamplingParams
from vsrv.options import SAMPLING

MAX_NESTING = 32  # rule R17: bounded before the parser recurses
_MAX_STOPS, _MAX_STOP_CHARACTERS = 16, 256
_MAX_BIASES, _MAX_BAD_WORDS, _MAX_STOP_IDS = 1024, 128, 120
_INT64 = 2**63
_STRING, _BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL), re.compile(rb"[\[\]{}]")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

# Fields that ask for something this version does not do, with the values that ask for nothing.
_UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "tools": (None,),
    "tool_choice": (None, "none", "auto"),
    "functions": (None,),
    "function_call": (None, "none"),
    "response_format": (None, {"type": "text"}),
    "structured_outputs": (None,),
    "guided_json": (None,),
    "guided_regex": (None,),
    "guided_choice": (None,),
    "guided_grammar": (None,),
    "use_beam_search": (None, False),
    "suffix": (None, ""),
    "chat_template": (None,),
    "documents": (None, []),
    "audio": (None,),
    "modalities": (None, ["text"]),
    "prediction": (None,),
    "logprob_token_ids": (None,),
    "thinking_token_budget": (None, -1),
    "repetition_detection": (None,),
    "prompt_embeds": (None,),
    "kv_transfer_params": (None,),
}
_KNOWN = frozenset(_UNSUPPORTED) | frozenset(
    """
    model messages prompt stream stream_options n best_of seed stop stop_token_ids include_stop_str_in_output ignore_eos
    temperature top_p top_k min_p frequency_penalty presence_penalty repetition_penalty min_tokens max_tokens
    max_completion_tokens logit_bias allowed_token_ids bad_words skip_special_tokens spaces_between_special_tokens
    truncate_prompt_tokens truncation_side prompt_logprobs logprobs top_logprobs echo priority request_id session_id user
    return_token_ids return_tokens_as_token_ids return_prompt_text cache_salt add_generation_prompt continue_final_message
    add_special_tokens chat_template_kwargs reasoning_effort include_reasoning parallel_tool_calls stream_interval
    length_penalty store metadata service_tier verbosity web_search_options safety_identifier prompt_cache_key
    prompt_cache_retention moderation
    """.split()
)


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What a request that does not say gets: from generation_config.json and --override-generation-config.

    max_tokens is what a chat that does not say gets; max_tokens_cap lowers what is asked for as well.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    max_tokens: int | None = None
    max_tokens_cap: int | None = None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a request is checked against. JSON-able: it is sent to the prepare child."""

    served_names: tuple[str, ...]
    max_model_len: int
    vocab_size: int
    max_logprobs: int
    eos_token_id: int | None
    extra_stop_ids: tuple[int, ...] = ()
    defaults: SamplingDefaults = field(default_factory=SamplingDefaults)
    max_n: int = 64
    max_prompts: int = 128
    template_variables: dict[str, Any] = field(default_factory=dict)
    response_role: str = "assistant"
    content_format: str = (
        "auto"  # of messages in the template: a text, "openai": a list of parts, or what it looks made for
    )


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A checked chat or completions request without its prompt; seeds of choices are seed + i.

    `params.max_tokens` is the largest that a prompt of the request has room for; `Prepared.limits` has each prompt's own.
    """

    dialect: str
    model: str
    params: SamplingParams
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    skip_special_tokens: bool = True
    echo: bool = False
    return_token_ids: bool = False
    tokens_as_ids: bool = False
    priority: int = 0
    cache_salt: str = ""
    request_id: str = ""
    unknown: tuple[str, ...] = ()  # names of fields that mean nothing here, for the log

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> GenerationRequest:
        params = {k: _frozen(v) for k, v in table.pop("params").items()}
        return cls(params=SamplingParams(**params), **{k: _frozen(v) for k, v in table.items()})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def invalid(param: str, message: str) -> UserError:
    return UserError(400, "invalid_value", f"{param}: {message}", param)


def parse_object(body: bytes | bytearray) -> dict[str, Any]:
    """JSON bytes → object, nesting bounded before parsing. Raises UserError 400."""
    deepest = 0
    if body.count(b"[") + body.count(b"{") > MAX_NESTING:  # otherwise it cannot be nested deeper
        depth = 0
        for bracket in _BRACKET.findall(_STRING.sub(b"", body)):
            depth += 1 if bracket in b"[{" else -1
            deepest = max(deepest, depth)
    if deepest > MAX_NESTING:
        raise UserError(400, "invalid_json", f"the body is nested deeper than {MAX_NESTING} levels")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:  # its own words are not ours to send (rule R8)
        where = f"line {error.lineno}, column {error.colno}"
        raise UserError(400, "invalid_json", f"the body is not valid JSON ({where})") from None
    if not isinstance(value, dict):
        raise UserError(400, "invalid_json", "the body must be a JSON object")
    return value


class Fields:
    """Typed, bounded reads. null means absent everywhere, as OpenAI's clients send it."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = body

    def raw(self, name: str) -> Any:
        return self._body.get(name)

    def has(self, name: str) -> bool:
        return self._body.get(name) is not None

    def unknown(self) -> tuple[str, ...]:
        """Names that no dialect has, cut to what fits into a log line."""
        return tuple(name[:60] for name in self._body if name not in _KNOWN)[:10]

    def integer(self, name: str, low: int, high: int, default: int | None) -> int | None:
        value = self._body.get(name)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise invalid(name, f"expected an integer, got {_shown(value)}")
        if not low <= value <= high:
            raise invalid(name, f"must be from {low} to {high}, got {value}")
        return value

    def number(self, name: str, low: float, high: float, default: float) -> float:
        value = self._body.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise invalid(name, f"expected a finite number, got {_shown(value)}")
        if not low <= value <= high:
            raise invalid(name, f"must be from {low:g} to {high:g}, got {value:g}")
        return float(value)

    def sampling(self, name: str, default: float) -> float:
        """A sampling number within the bounds that it has everywhere."""
        bound = SAMPLING[name]
        if bound.kind == "int":
            whole = self.integer(name, int(bound.low), int(bound.high), None)
            return default if whole is None else whole
        value = self.number(name, bound.low, bound.high, default)
        if bound.above_low and value == bound.low:
            raise invalid(name, f"must be above {bound.low:g}")
        return value

    def boolean(self, name: str, default: bool) -> bool:
        value = self._body.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise invalid(name, f"expected true or false, got {_shown(value)}")
        return value

    def text(self, name: str, longest: int, default: str) -> str:
        value = self._body.get(name)
        if value is None:
            return default
        if not isinstance(value, str) or len(value) > longest:
            raise invalid(name, f"expected text of at most {longest} characters")
        return value

    def token_ids(self, name: str, vocab_size: int, most: int) -> tuple[int, ...]:
        value = self._body.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > most:
            raise invalid(name, f"expected a list of at most {most} token ids")
        return tuple(token_id(item, name, vocab_size) for item in value)


def token_id(value: Any, name: str, vocab_size: int) -> int:
    """Rule R11: 0 <= id < vocabulary, and no bool or float in disguise."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < vocab_size:
        raise invalid(name, f"token id {_shown(value)} is out of the vocabulary (0 to {vocab_size - 1})")
    return value


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def check_model(fields: Fields, facts: ModelFacts) -> str:
    """The model's name as answers show it. Absent or empty means the first served one; a wrong one is 404."""
    name = fields.raw("model")
    if name is not None and not isinstance(name, str):
        raise invalid("model", "expected text")
    if name and name not in facts.served_names:
        names = ", ".join(facts.served_names)
        raise UserError(
            404, "model_not_found", f"The model `{name[:200]}` does not exist. Served here: {names}", "model"
        )
    return facts.served_names[0]


def check_unsupported(fields: Fields) -> None:
    for name, harmless in _UNSUPPORTED.items():
        value = fields.raw(name)
        if value is not None and value not in harmless:
            raise UserError(
                400, "unsupported_parameter", f"{name} is not supported by this version of vsrv", name
            )


@dataclass(frozen=True, slots=True)
class Common:
    """What chat and completions share, before the prompt's length is known."""

    fields: Fields
    facts: ModelFacts
    bad_words: tuple[tuple[int, ...], ...]


def request_of(common: Common, dialect: str, limits: Sequence[int], seed: int | None) -> GenerationRequest:
    """All fields but the prompt; `limits` is max_tokens of each prompt. Raises UserError 400 naming the field."""
    fields, facts = common.fields, common.facts
    is_chat = dialect == "chat"
    logprobs = (
        _chat_logprobs(fields, facts) if is_chat else fields.integer("logprobs", 0, facts.max_logprobs, None)
    )
    prompt_logprobs = fields.integer("prompt_logprobs", 0, facts.max_logprobs, None)
    stream = fields.boolean("stream", False)
    if stream and prompt_logprobs:
        raise invalid("prompt_logprobs", "is not available with stream")
    if stream:
        prompt_logprobs = None  # 0 is accepted, as in vLLM, and no chunk has a place for it
    options = fields.raw("stream_options")
    if options is not None and (not stream or not isinstance(options, dict)):
        raise invalid("stream_options", "needs stream: true" if not stream else "expected an object")
    stream_fields = Fields(options or {})
    echo = fields.boolean("echo", False)
    if is_chat and echo:
        raise UserError(400, "unsupported_parameter", "echo is not supported for chat", "echo")
    n = fields.integer("n", 1, facts.max_n, 1) or 1
    asked = [k for k in (prompt_logprobs, logprobs if echo else None) if k is not None]
    params = _params(common, limits, seed, logprobs, max(asked, default=None))
    if n > 1 and params.temperature == 0:
        raise invalid("n", "must be 1 with temperature 0: all choices would be the same")
    best_of = fields.integer("best_of", 1, facts.max_n, n)
    if best_of != n:
        raise UserError(400, "unsupported_parameter", "best_of other than n is not supported", "best_of")
    return GenerationRequest(
        dialect=dialect,
        model=check_model(fields, facts),
        params=params,
        n=n,
        stream=stream,
        include_usage=stream_fields.boolean("include_usage", False),
        continuous_usage=stream_fields.boolean("continuous_usage_stats", False),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        stop=_stops(fields),
        include_stop=fields.boolean("include_stop_str_in_output", False),
        skip_special_tokens=fields.boolean("skip_special_tokens", True),
        echo=echo,
        return_token_ids=fields.boolean("return_token_ids", False),
        tokens_as_ids=fields.boolean("return_tokens_as_token_ids", False),
        priority=fields.integer("priority", -(2**31), 2**31 - 1, 0) or 0,
        cache_salt=_cache_salt(fields),
        request_id=_request_id(fields),
        unknown=fields.unknown(),
    )


def _cache_salt(fields: Fields) -> str:
    salt = fields.text("cache_salt", 128, "")
    if fields.has("cache_salt") and not salt:
        raise invalid("cache_salt", "must not be empty")
    return salt


def _request_id(fields: Fields) -> str:
    """Enters the answer's id, so it has to be what an X-Request-Id may be."""
    name = fields.text("request_id", 128, "")
    if fields.has("request_id") and not _REQUEST_ID.fullmatch(name):
        raise invalid("request_id", "expected 1 to 128 letters, digits or any of - _ . :")
    return name


def _chat_logprobs(fields: Fields, facts: ModelFacts) -> int | None:
    wanted = fields.boolean("logprobs", False)
    top = fields.integer("top_logprobs", 0, facts.max_logprobs, 0)
    if top and not wanted:
        raise invalid("top_logprobs", "needs logprobs: true")
    return top if wanted else None


def _params(
    common: Common,
    limits: Sequence[int],
    seed: int | None,
    logprobs: int | None,
    prompt_logprobs: int | None,
) -> SamplingParams:
    fields, facts = common.fields, common.facts
    defaults = facts.defaults
    temperature = fields.sampling("temperature", defaults.temperature)
    temperature = 0.0 if temperature < 1e-5 else max(temperature, 0.01)
    top_k = int(fields.sampling("top_k", defaults.top_k))
    min_tokens = fields.integer("min_tokens", 0, 1 << 30, 0) or 0
    if min_tokens > min(limits):
        raise invalid("min_tokens", f"must not be above max_tokens ({min(limits)})")
    allowed = fields.token_ids("allowed_token_ids", facts.vocab_size, 1 << 20)
    if fields.has("allowed_token_ids") and not allowed:
        raise invalid("allowed_token_ids", "must not be empty")
    stop_ids = fields.token_ids("stop_token_ids", facts.vocab_size, _MAX_STOP_IDS - len(facts.extra_stop_ids))
    ignore_eos = fields.boolean("ignore_eos", False)
    return SamplingParams(
        max_tokens=max(limits),
        temperature=temperature,
        top_k=top_k if 0 < top_k < facts.vocab_size else 0,  # every token is no restriction
        top_p=fields.sampling("top_p", defaults.top_p),
        min_p=fields.sampling("min_p", defaults.min_p),
        presence_penalty=fields.sampling("presence_penalty", defaults.presence_penalty),
        frequency_penalty=fields.sampling("frequency_penalty", defaults.frequency_penalty),
        repetition_penalty=fields.sampling("repetition_penalty", defaults.repetition_penalty),
        logit_bias=_biases(fields, facts.vocab_size),
        allowed_token_ids=allowed,
        bad_words=common.bad_words,
        min_tokens=min_tokens,
        ignore_eos=ignore_eos,
        eos_token_id=facts.eos_token_id,
        stop_token_ids=tuple(dict.fromkeys((*stop_ids, *(() if ignore_eos else facts.extra_stop_ids)))),
        seed=seed,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
    )


def read_seed(fields: Fields) -> int | None:
    seed = fields.integer("seed", -_INT64, _INT64 - 1, None)
    return None if seed == -1 else seed


def _biases(fields: Fields, vocab_size: int) -> tuple[tuple[int, float], ...]:
    table = fields.raw("logit_bias")
    if table is None:
        return ()
    if not isinstance(table, dict) or len(table) > _MAX_BIASES:
        raise invalid("logit_bias", f"expected an object of at most {_MAX_BIASES} token ids")
    biases: list[tuple[int, float]] = []
    for key, value in table.items():
        if not key.isascii() or not key.isdigit():
            raise invalid("logit_bias", f"key {_shown(key)} is no token id")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise invalid("logit_bias", f"bias of {key} must be a finite number")
        biases.append((token_id(int(key), "logit_bias", vocab_size), min(100.0, max(-100.0, float(value)))))
    return tuple(biases)


def _stops(fields: Fields) -> tuple[str, ...]:
    value = fields.raw("stop")
    items = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(items, list) or len(items) > _MAX_STOPS:
        raise invalid("stop", f"expected text or a list of at most {_MAX_STOPS} texts")
    for item in items:
        if not isinstance(item, str) or not 0 < len(item) <= _MAX_STOP_CHARACTERS:
            raise invalid("stop", f"each stop string needs 1 to {_MAX_STOP_CHARACTERS} characters")
    return tuple(items)


def read_bad_words(fields: Fields) -> list[str]:
    words = fields.raw("bad_words")
    words = [] if words is None else words
    if not isinstance(words, list) or len(words) > _MAX_BAD_WORDS:
        raise invalid("bad_words", f"expected a list of at most {_MAX_BAD_WORDS} texts")
    for word in words:
        if not isinstance(word, str) or not 0 < len(word) <= 200:
            raise invalid("bad_words", "each bad word needs 1 to 200 characters")
    return words
