"""A checked request: what its fields mean together, once each has been read by its row of api/request_fields.py.

What vsrv does not do and what would change the answer is refused (`unsupported_parameter`), never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vsrv.api.choices import read_choices
from vsrv.api.fields import Fields, invalid
from vsrv.api.plans import ReadingPlan
from vsrv.api.request_fields import KNOWN, REQUESTS, STREAM_OPTIONS
from vsrv.errors import UserError
from vsrv.messages import SamplingParams

_MAX_STOP_IDS = 120
_CHARACTERS_PER_TOKEN = (
    16  # no text is longer than tokens x this in real vocabularies: longer ones cannot fit
)
_CUT_MARGIN = (
    1 << 16  # characters more of a text that is to be cut: many vocabularies read blanks as nothing
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
    content_format: str = (
        "auto"  # of messages in the template: a text, "openai": a list of parts, or what it looks made for
    )
    tool_parser: str = ""  # a name of text.tools, "none", or "" for what the template is made for
    reasoning_parser: str = ""  # a name of text.reasoning, likewise
    tool_strict_level: str = "auto"  # which calls are held to a grammar: see the option
    any_name: bool = False  # requests may name any model and get this one
    hide_unused_tools: bool = False  # from the template, where tool_choice is none
    compact_json: bool = False  # in every structured output
    closed_objects: bool = False  # likewise: no properties but those that a schema lists

    tasks: tuple[str, ...] = ("generate",)  # or "embed", "score"
    embedding_size: int = 0
    is_matryoshka: bool = False
    matryoshka: tuple[int, ...] = ()  # lengths that a vector may be cut to; none: any

    # numbers that rows of api/request_fields.py name

    @property
    def max_stop_token_ids(self) -> int:
        return _MAX_STOP_IDS - len(self.extra_stop_ids)

    @property
    def longest_text(self) -> int:
        """Characters of a text that may still fit into the context."""
        return self.max_model_len * _CHARACTERS_PER_TOKEN

    def readable(self, text: str, cut_side: str) -> str:
        """What of a text that is to be cut at `cut_side` may be among the tokens that are kept: nobody reads the rest of 30 MB."""
        most = self.longest_text + _CUT_MARGIN  # the tokens next to a cut are others than those of the whole
        return text[:most] if cut_side == "right" else text[-most:]

    @property
    def most_tokens_read(self) -> int:
        """Token ids that /detokenize takes."""
        return 4 * self.max_model_len


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A checked chat or completions request without its prompt; seeds of choices are seed + i.

    `params.max_tokens` is the largest that a prompt of the request has room for; `Prepared.limits` has each prompt's own.
    """

    dialect: str
    model: str
    params: SamplingParams
    n: int = 1
    best_of: int = 0  # sequences of each prompt, of which n are told; 0: n
    beam_search: bool = False
    length_penalty: float = 1.0
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
    reading: ReadingPlan = ReadingPlan()  # noqa: RUF009 - frozen

    @property
    def width(self) -> int:
        """Sequences of each prompt that the engine computes at once."""
        return self.best_of or self.n

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> GenerationRequest:
        params = {k: _frozen(v) for k, v in table.pop("params").items()}
        reading = ReadingPlan.from_json(table.pop("reading"))
        rest = {k: _frozen(v) for k, v in table.items()}
        return cls(params=SamplingParams(**params), reading=reading, **rest)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def request_fields(body: dict[str, Any], dialect: str, facts: ModelFacts) -> Fields:
    """The fields of a body, each of them read once: types, bounds and what is not supported. Raises UserError."""
    fields = Fields(body, REQUESTS[dialect], facts)
    check_model(fields, facts)
    fields.check()
    return fields


def check_model(fields: Fields, facts: ModelFacts) -> str:
    """The model's name as answers show it. Absent or empty means the first served one; a wrong one is 404."""
    name = fields.raw("model")
    if name is not None and not isinstance(name, str):
        raise invalid("model", "expected text")
    if name and name not in facts.served_names and not facts.any_name:
        names = ", ".join(facts.served_names)
        raise UserError(
            404, "model_not_found", f"The model `{name[:200]}` does not exist. Served here: {names}", "model"
        )
    return facts.served_names[0]


@dataclass(frozen=True, slots=True)
class Common:
    """What chat and completions share, before the prompt's length is known. `bad_words` as token ids, `grammar` checked."""

    fields: Fields
    facts: ModelFacts
    bad_words: tuple[tuple[int, ...], ...]
    grammar: str = ""
    reading: ReadingPlan = ReadingPlan()  # noqa: RUF009 - frozen


def request_of(common: Common, dialect: str, limits: Sequence[int]) -> GenerationRequest:
    """All fields but the prompt; `limits` is max_tokens of each prompt. Raises UserError 400 naming the field."""
    fields, facts = common.fields, common.facts
    is_chat = dialect == "chat"
    logprobs: int | None = _chat_logprobs(fields) if is_chat else fields["logprobs"]
    stream, prompt_logprobs = fields["stream"], fields["prompt_logprobs"]
    if stream and prompt_logprobs:
        raise invalid("prompt_logprobs", "is not available with stream")
    if stream:
        prompt_logprobs = None  # 0 is accepted, as in vLLM, and no chunk has a place for it
    options = _stream_options(fields)
    echo = bool(fields["echo"])
    asked = [k for k in (prompt_logprobs, logprobs if echo else None) if k is not None]
    params = _params(common, limits, logprobs, max(asked, default=None))
    choices = read_choices(fields, params, facts.max_logprobs, is_chat)
    if choices.best_of and logprobs is None:
        params = replace(params, logprobs=0)  # their sum is what the best is known by
    return GenerationRequest(
        dialect=dialect,
        model=check_model(fields, facts),
        params=params,
        n=choices.n,
        best_of=choices.best_of,
        beam_search=choices.beam_search,
        length_penalty=choices.length_penalty,
        stream=stream,
        include_usage=options["include_usage"],
        continuous_usage=options["continuous_usage_stats"],
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        stop=fields["stop"],
        include_stop=fields["include_stop_str_in_output"],
        skip_special_tokens=fields["skip_special_tokens"],
        echo=echo,
        return_token_ids=fields["return_token_ids"],
        tokens_as_ids=fields["return_tokens_as_token_ids"],
        priority=fields["priority"],
        cache_salt=fields["cache_salt"],
        request_id=fields["request_id"],
        unknown=fields.unknown(KNOWN),
        reading=common.reading,
    )


def _stream_options(fields: Fields) -> Fields:
    given = fields["stream_options"]
    if given is not None and not fields["stream"]:
        raise invalid("stream_options", "needs stream: true")
    return Fields(given or {}, STREAM_OPTIONS, where="stream_options.")


def _chat_logprobs(fields: Fields) -> int | None:
    wanted, top = fields["logprobs"], fields["top_logprobs"]
    if top and not wanted:
        raise invalid("top_logprobs", "needs logprobs: true")
    return top if wanted else None


def _params(
    common: Common, limits: Sequence[int], logprobs: int | None, prompt_logprobs: int | None
) -> SamplingParams:
    fields, facts = common.fields, common.facts

    def sampling(name: str) -> Any:
        value = fields[name]
        return getattr(facts.defaults, name) if value is None else value

    temperature, top_k, seed = sampling("temperature"), sampling("top_k"), fields["seed"]
    if fields["min_tokens"] > min(limits):
        raise invalid("min_tokens", f"must not be above max_tokens ({min(limits)})")
    ignore_eos = fields["ignore_eos"]
    own_stops = () if ignore_eos else facts.extra_stop_ids
    return SamplingParams(
        max_tokens=max(limits),
        temperature=0.0 if temperature < 1e-5 else max(temperature, 0.01),
        top_k=top_k if 0 < top_k < facts.vocab_size else 0,  # every token is no restriction
        top_p=sampling("top_p"),
        min_p=sampling("min_p"),
        presence_penalty=sampling("presence_penalty"),
        frequency_penalty=sampling("frequency_penalty"),
        repetition_penalty=sampling("repetition_penalty"),
        logit_bias=fields["logit_bias"],
        allowed_token_ids=fields["allowed_token_ids"],
        bad_words=common.bad_words,
        min_tokens=fields["min_tokens"],
        ignore_eos=ignore_eos,
        eos_token_id=facts.eos_token_id,
        stop_token_ids=tuple(dict.fromkeys((*fields["stop_token_ids"], *own_stops))),
        seed=None if seed == -1 else seed,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        grammar=common.grammar,
    )


def too_long(facts: ModelFacts, finding: str, param: str, otherwise: str = "") -> UserError:
    """`finding` says what has how many tokens. Clients look for the words of the first sentence, which are OpenAI's."""
    message = f"This model's maximum context length is {facts.max_model_len} tokens. However, {finding} tokens. Shorten the {param}{otherwise}."
    return UserError(400, "context_length_exceeded", message, param)
