"""The fields of every request that generates or tokenises: one row each, for the parser and for the OpenAPI document.

A name has one row for each dialect at most. What the values mean together is in api/schema.py and api/prepare.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vsrv.api import pooling_fields
from vsrv.api.fields import Field, Table, refused, table
from vsrv.options import SAMPLING

CHAT, COMPLETIONS, TOKENIZE, DETOKENIZE = "chat", "completions", "tokenize", "detokenize"
GENERATING = (CHAT, COMPLETIONS)
TEMPLATED = (CHAT, TOKENIZE)
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
MAX_TOOLS = 1024  # agents with several tool servers bring hundreds
FUNCTION_NAME = r"[A-Za-z0-9_.:/-]{1,128}"
_INT64 = 2**63
_MESSAGE = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"type": "string", "minLength": 1, "maxLength": 64},
        "content": {
            "anyOf": [
                {"type": ["string", "null"]},
                {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["type", "text"],
                        "properties": {"type": {"enum": ["text", "input_text"]}, "text": {"type": "string"}},
                    },
                },
            ]
        },
    },
}
_TOOL = {
    "type": "object",
    "required": ["type", "function"],
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "pattern": f"^{FUNCTION_NAME}$"},
                "description": {"type": ["string", "null"]},
                "parameters": {"type": ["object", "null"]},
                "strict": {"type": ["boolean", "null"]},
            },
        },
    },
}
_TOOL_CHOICE = {
    "anyOf": [
        {"enum": ["none", "auto", "required"]},
        {
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"enum": ["function", "allowed_tools"]}},
        },
    ]
}

_DOCUMENT = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": 16,
    "additionalProperties": {"type": "string"},
}


def _sampling(name: str, help: str) -> Field:
    bound = SAMPLING[name]
    kind: Any = "integer" if bound.kind == "int" else "number"
    low, high = (int(bound.low), int(bound.high)) if bound.kind == "int" else (bound.low, bound.high)
    return Field(name, kind, help, low, high, None, GENERATING, above_low=bound.above_low)


def _flag(name: str, default: bool, help: str, dialects: tuple[str, ...] = GENERATING) -> Field:
    return Field(name, "boolean", help, default=default, dialects=dialects)


def _ignored(name: str, help: str) -> Field:
    return Field(name, "any", help, dialects=GENERATING)


def _refused(name: str, why: str = "", *harmless: Any, dialects: tuple[str, ...] = GENERATING) -> Field:
    return refused(name, why, *harmless, dialects=dialects)


# fmt: off
_MODEL = (
    Field("model", "text", "a name of the served model; absent or empty: the first one", 0, 1024, "",
          (*GENERATING, TOKENIZE, DETOKENIZE)),
)
_SAMPLING = (
    _sampling("temperature", "randomness; 0 always takes the most likely token"),
    _sampling("top_p", "only the most likely tokens with this probability in all"),
    _sampling("top_k", "only so many of the most likely tokens; 0 or -1: all"),
    _sampling("min_p", "only tokens with this share of the most likely one's probability"),
    _sampling("frequency_penalty", "taken off a token's logit for each time that it was produced"),
    _sampling("presence_penalty", "taken off the logit of a token that was produced"),
    _sampling("repetition_penalty", "divides positive and multiplies negative logits of tokens seen, prompt included"),
    Field("seed", "integer", "makes the answer repeatable; -1: none", -_INT64, _INT64 - 1, None, GENERATING),
    Field("logit_bias", "biases", "token id → what is added to its logit, clamped to -100 … 100", 0, 1024, (), GENERATING),
    Field("allowed_token_ids", "token_ids", "no other tokens than these", 1, 1 << 14, (), GENERATING),
    Field("bad_words", "texts", "texts that are not produced", 0, 128, (), GENERATING, longest=200),
)
_STOPPING = (
    Field("max_tokens", "integer", "most tokens of an answer; the default is what the context has room for", 0, 1 << 30, None, (CHAT,)),
    Field("max_tokens", "integer", "most tokens of an answer", 0, 1 << 30, 16, (COMPLETIONS,)),
    Field("max_completion_tokens", "integer", "the same as max_tokens, and wins over it", 0, 1 << 30, None, (CHAT,)),
    Field("min_tokens", "integer", "no end before so many tokens", 0, 1 << 30, 0, GENERATING),
    Field("stop", "texts", "texts that end the answer; they are not part of it", 0, 16, (), GENERATING, longest=256),
    Field("stop_token_ids", "token_ids", "tokens that end the answer", 0, "max_stop_token_ids", (), GENERATING),
    _flag("include_stop_str_in_output", False, "the stop string stays in the answer"),
    _flag("ignore_eos", False, "go on after the end token"),
)
_ANSWERING = (
    Field("n", "integer", "answers to each prompt", 1, "max_n", 1, GENERATING),
    Field("best_of", "integer", "accepted where it equals n", 1, "max_n", None, (CHAT,)),
    Field("best_of", "integer", "make so many answers and send the n that are most likely by token; not with stream", 1, "max_n", None, (COMPLETIONS,)),
    _flag("use_beam_search", False, "the n most likely answers that a beam search of width n finds, instead of sampled ones"),
    Field("length_penalty", "number", "of beam search: a beam's log probability is divided by its tokens to this power", -10, 10, 1.0, GENERATING),
    _flag("stream", False, "send the answer in pieces, as server-sent events"),
    Field("stream_options", "object", "of a stream: include_usage, continuous_usage_stats", 0, 16, None, GENERATING),
    Field("logprobs", "boolean", "tell the log probability of each token", default=False, dialects=(CHAT,)),
    Field("logprobs", "integer", "tell the log probabilities of each token and of so many most likely ones", 0, "max_logprobs", None, (COMPLETIONS,)),
    Field("top_logprobs", "integer", "with logprobs: so many most likely tokens at each place", 0, "max_logprobs", 0, (CHAT,)),
    Field("prompt_logprobs", "integer", "the same for the prompt's tokens; not with stream", 0, "max_logprobs", None, GENERATING),
    _flag("echo", False, "begin the answer with the prompt", (COMPLETIONS,)),
    _refused("echo", "is not supported for chat", False, dialects=(CHAT,)),
    _flag("skip_special_tokens", True, "leave control tokens out of the text"),
    _flag("spaces_between_special_tokens", True, "without effect: no spaces are put there"),
    _flag("return_token_ids", False, "tell the ids of prompt and answer"),
    _flag("return_tokens_as_token_ids", False, "name tokens of log probabilities token_id:N"),
    _flag("return_prompt_text", False, "tell the text that the template made", (CHAT,)),
    Field("stream_interval", "integer", "without effect: every token is sent at once", 1, 1 << 20, 1, GENERATING),
)
_PROMPTING = (
    Field("messages", "list", "the conversation, oldest first", 1, 4096, None, (CHAT,), required=True, schema={"items": _MESSAGE}),
    Field("messages", "list", "a conversation for the template, oldest first", 1, 4096, None, (TOKENIZE,), schema={"items": _MESSAGE}),
    Field("prompt", "prompt", "a text, token ids, or a list of either", 1, "max_prompts", None, (COMPLETIONS,), required=True),
    Field("suffix", "text", "what comes after the answer, for models that fill in the middle", 0, "longest_text", "", (COMPLETIONS,)),
    Field("prompt", "text", "the text to be tokenised", 0, "longest_text", None, (TOKENIZE,)),
    Field("tokens", "token_ids", "the ids to be spelled", 0, "most_tokens_read", None, (DETOKENIZE,), required=True),
    _flag("return_token_strs", False, "spell each token", (TOKENIZE,)),
    Field("add_special_tokens", "boolean", "put the tokens in front that the tokenizer adds to a text", dialects=(*GENERATING, TOKENIZE)),
    Field("truncate_prompt_tokens", "integer", "keep so many tokens of a longer prompt; -1: what fits", -1, "max_model_len", None, GENERATING),
    Field("truncation_side", "choice", "where truncate_prompt_tokens cuts", default="left", dialects=GENERATING, choices=("left", "right")),
    _flag("add_generation_prompt", True, "let the template begin the answer", TEMPLATED),
    _flag("continue_final_message", False, "go on where the last message ends", TEMPLATED),
    Field("chat_template_kwargs", "variables", "variables of the chat template; scalars only", 0, 32, None, TEMPLATED, longest=1024,
          choices=("messages", "tools", "documents", "chat_template", "tokenize", "add_generation_prompt")),
    Field("documents", "list", "texts that the model's template shows it", 0, 256, None, TEMPLATED, schema={"items": _DOCUMENT}),
    Field("reasoning_effort", "choice", "told to the template; none switches thinking off", dialects=TEMPLATED, choices=EFFORTS),
)
_CONSTRAINING = (
    Field("response_format", "object", "what the answer is: text, json_object, json_schema or structural_tag", 0, 16, None, GENERATING,
          schema={"required": ["type"]}),
    Field("structured_outputs", "object", "a constraint of the answer: json, json_object, regex, choice, grammar or structural_tag", 0, 16, None, GENERATING),
    Field("guided_json", "any", "an older name of structured_outputs.json", dialects=GENERATING),
    _flag("guided_json_object", False, "an older name of structured_outputs.json_object"),
    Field("guided_regex", "text", "an older name of structured_outputs.regex", 1, 1024, None, GENERATING),
    Field("guided_choice", "list", "an older name of structured_outputs.choice", 1, 1024, None, GENERATING),
    Field("guided_grammar", "text", "an older name of structured_outputs.grammar", 1, 1 << 16, None, GENERATING),
    Field("guided_whitespace_pattern", "text", "an older name of structured_outputs.whitespace_pattern", 1, 256, "", GENERATING),
    Field("structural_tag", "any", "an older name of structured_outputs.structural_tag", dialects=GENERATING),
)
_CALLING = (
    Field("tools", "list", "functions that the model may call", 1, MAX_TOOLS, None, TEMPLATED, schema={"items": _TOOL}),
    Field("tool_choice", "any", "none, auto, required, or the function that is to be called", dialects=TEMPLATED, schema=_TOOL_CHOICE),
    _flag("parallel_tool_calls", True, "allow more than one call in an answer", TEMPLATED),
    Field("functions", "list", "an older name of tools", 1, MAX_TOOLS, None, TEMPLATED),
    Field("function_call", "any", "an older name of tool_choice", dialects=TEMPLATED),
    _flag("include_reasoning", True, "show the thinking before the answer", TEMPLATED),
    Field("thinking_token_budget", "integer", "end the thinking after so many tokens; -1: no limit", -1, 1 << 20, None, (CHAT,)),
)
_SERVING = (
    Field("priority", "integer", "with --scheduling-policy priority: the smaller, the sooner", -(2**31), 2**31 - 1, 0, GENERATING),
    Field("cache_salt", "text", "keeps cached prompts apart from those with another salt", 1, 128, "", GENERATING),
    Field("request_id", "text", "becomes part of the answer's id", 1, 128, "", GENERATING,
          pattern=r"[A-Za-z0-9._:-]{1,128}", expected="1 to 128 letters, digits or any of - _ . :"),
)
_HARMLESS = tuple(
    _ignored(name, "accepted, without effect")
    for name in """user session_id store metadata service_tier verbosity safety_identifier prompt_cache_key prompt_cache_options
    prompt_cache_retention moderation prediction guided_decoding_backend""".split()
)
_UNSUPPORTED = (
    _refused("suffix", "is of /v1/completions", "", dialects=(CHAT,)),
    _refused("web_search_options", "is not supported: nothing is fetched for a request"),
    _refused("chat_template", "of a request is not accepted: a template is a program (--chat-template is the server's)"),
    _refused("documents", "are of chats: put them into the prompt", [], dialects=(COMPLETIONS,)),
    _refused("audio", "is not supported: answers are text"),
    _refused("modalities", "other than text are not supported", ["text"]),
    _refused("logprob_token_ids"),
    _refused("repetition_detection"),
    _refused("prompt_embeds", "are not accepted: send text or token ids"),
    *(_refused(name, "is not accepted from a request", {}) for name in ("kv_transfer_params", "ec_transfer_params", "vllm_xargs")),
    *(_refused(name, "is not supported: prompts are text", {}) for name in ("media_io_kwargs", "mm_processor_kwargs", "mm_payload")),
    *(_refused(name, "", False) for name in ("return_mm_kwargs", "return_token_offsets", "watermarking")),
    _refused("routed_experts_prompt_start"),
)
ROWS = (
    *_MODEL, *_PROMPTING, *_SAMPLING, *_STOPPING, *_ANSWERING, *_CONSTRAINING, *_CALLING, *_SERVING, *_HARMLESS, *_UNSUPPORTED,
)
REQUESTS: Mapping[str, Table] = {
    dialect: table(*(row for row in ROWS if dialect in row.dialects))
    for dialect in (CHAT, COMPLETIONS, TOKENIZE, DETOKENIZE)
} | dict(pooling_fields.REQUESTS)
KNOWN = frozenset(row.name for row in ROWS)
# fmt: on
STREAM_OPTIONS = table(
    Field("include_usage", "boolean", "send the usage at the end of the stream", default=False),
    Field(
        "continuous_usage_stats",
        "boolean",
        "with include_usage: send the usage on every chunk",
        default=False,
    ),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """What has to hold between fields, as a JSON schema of the body; api/schema.py refuses what breaks it."""

    dialects: tuple[str, ...]
    schema: Mapping[str, Any]


def _either(first: Mapping[str, Any], second: Mapping[str, Any], *required: str) -> dict[str, Any]:
    """One of two sets of fields has these values; `required` fields of the second must be there, others may be absent."""
    return {"anyOf": [{"properties": first}, {"properties": second, "required": list(required)}]}


_NO, _NONE = {"enum": [False, None]}, {"enum": [0, None]}
_NEAR_ZERO = 1e-5  # temperatures below take the most likely token always
_SEVERAL = (  # greedy sequences would be all the same
    {"properties": {"n": {"enum": [1, None]}, "best_of": {"enum": [1, None]}}},
    {"properties": {"temperature": {"type": ["number", "null"], "exclusiveMinimum": _NEAR_ZERO}}},
)
RULES = (
    Rule(
        GENERATING,
        _either(
            {"stream": _NO, "stream_options": {"type": "null"}},
            {"stream": {"const": True}, "prompt_logprobs": _NONE},
            "stream",
        ),
    ),
    Rule(
        GENERATING,
        {
            "anyOf": [
                *_SEVERAL,
                {"properties": {"use_beam_search": {"const": True}}, "required": ["use_beam_search"]},
            ]
        },
    ),
    Rule((CHAT,), _either({"top_logprobs": _NONE}, {"logprobs": {"const": True}}, "logprobs")),
    # not told of chat, where schemathesis gives up on so many rules at once
    Rule((TOKENIZE,), _either({"continue_final_message": _NO}, {"add_generation_prompt": _NO})),
    Rule(
        (pooling_fields.SCORE,),
        {
            "anyOf": [
                {"properties": {name: {"not": {"type": "null"}} for name in pair}, "required": list(pair)}
                for pair in pooling_fields.PAIRS
            ]
        },
    ),
    Rule(
        (TOKENIZE,),
        {
            "anyOf": [
                {"required": ["prompt"], "properties": {"prompt": {"type": "string"}}},
                {"required": ["messages"], "properties": {"messages": {"type": "array"}}},
            ]
        },
    ),
)
