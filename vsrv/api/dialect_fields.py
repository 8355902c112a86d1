"""The fields of the dialects that are translated to chat: /v1/messages and /v1/responses, each with its counting.

What the three share with chat (sampling, vLLM's extras) are chat's own rows. Sources: Anthropic's and OpenAI's API references.
"""

from __future__ import annotations

from collections.abc import Mapping

from vsrv.api.fields import Field, Table, refused, table
from vsrv.api.request_fields import CHAT, EFFORTS, MAX_TOOLS, REQUESTS

MESSAGES, COUNT_TOKENS = "messages", "count_tokens"
RESPONSES, INPUT_TOKENS = "responses", "input_tokens"
MAX_ITEMS = 16384  # messages or input items, and content blocks of one of them
_SHARED = tuple(
    REQUESTS[CHAT][name]
    for name in """model stream temperature top_p top_k min_p repetition_penalty presence_penalty frequency_penalty seed stop_token_ids
    min_tokens ignore_eos logit_bias allowed_token_ids bad_words skip_special_tokens include_stop_str_in_output chat_template_kwargs
    priority cache_salt request_id truncate_prompt_tokens structured_outputs""".split()
)
# Passed on to chat as they are. `model` and `stream` are, too, but every translator does that by name.
PASSED = tuple(row.name for row in _SHARED)


def _ignored(names: str) -> tuple[Field, ...]:
    return tuple(Field(name, "any", "accepted, without effect") for name in names.split())


def _object(name: str, help: str) -> Field:
    return Field(name, "object", help, 0, 64)


_BLOCKS = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object", "required": ["type"]}}]
}
_TURN = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {"role": {"enum": ["user", "assistant", "system"]}, "content": _BLOCKS},
}
_INPUT = {
    "anyOf": [{"type": "string"}, {"type": "array", "maxItems": MAX_ITEMS, "items": {"type": "object"}}]
}

# fmt: off
_TOOLS = Field("tools", "list", "tools that the client runs; others are read over", 0, MAX_TOOLS)
_PROMPT = (
    Field("messages", "list", "the conversation, oldest first", 1, MAX_ITEMS, required=True, schema={"items": _TURN}),
    Field("system", "any", "instructions: a text or text blocks", schema=_BLOCKS),
    Field("tool_choice", "object", "auto, any, tool with a name, or none; disable_parallel_tool_use", 0, 16),
    _TOOLS,
    _object("thinking", "enabled with budget_tokens, disabled, or adaptive: as the model does by itself"),
    _object("output_config", "effort; format: a JSON schema of the answer"),
    _object("output_format", "the older place of output_config.format"),
)
_ANTHROPIC = (
    Field("max_tokens", "integer", "most tokens of the answer; above the context: all that it has room for", 0, 1 << 53, required=True),
    Field("stop_sequences", "texts", "texts that end the answer; they are not part of it", 0, 16, (), longest=256),
    refused("container", "nothing is run on the server beside the model"),
    refused("mcp_servers", "nothing is run on the server beside the model", []),
    _object("metadata", "accepted, without effect"),
)
_COUNTED = tuple(row for row in _SHARED if row.name in ("model", "chat_template_kwargs"))
_WITHOUT_EFFECT = _ignored(
    "cache_control service_tier speed inference_geo user_profile_id workspace_id diagnostics context_management betas"
)
_NO_MEMORY = "vsrv keeps no responses: send the whole conversation as input"
_OPENAI = (
    Field("input", "any", "a text, or the conversation's items, oldest first", required=True, schema=_INPUT),
    Field("instructions", "text", "stand before everything else", 0, 1 << 28),
    _TOOLS,
    Field("tool_choice", "any", "none, auto, required, one tool, or allowed_tools", default=None),
    Field("parallel_tool_calls", "boolean", "more than one call in an answer", default=True),
    Field("max_output_tokens", "integer", "most tokens of the answer; above the context: all that it has room for", 0, 1 << 53),
    Field("max_tool_calls", "integer", "without effect: of tools that a server runs", 0, 1 << 30),
    _object("text", "format: text, json_object or a json_schema; verbosity"),
    _object("reasoning", f"effort ({', '.join(EFFORTS)}); summary: send the reasoning in place of a summary of it"),
    Field("include", "list", "reasoning.encrypted_content, message.output_text.logprobs; others ask for nothing here", 0, 32),
    Field("top_logprobs", "integer", "with message.output_text.logprobs: so many most likely tokens at each place", 0, "max_logprobs"),
    Field("metadata", "object", "repeated in the answer", 0, 16),
    Field("truncation", "choice", "without effect: a prompt that is too long is refused", default="disabled", choices=("auto", "disabled")),
    Field("stop", "texts", "texts that end the answer; they are not part of it", 0, 16, (), longest=256),
    *(Field(name, "text", "repeated in the answer", 0, 1024) for name in ("user", "safety_identifier", "prompt_cache_key")),
    refused("store", f"cannot be true: {_NO_MEMORY}", False),
    refused("previous_response_id", f"cannot be given: {_NO_MEMORY}"),
    refused("conversation", f"cannot be given: {_NO_MEMORY}"),
    refused("background", "cannot be true: vsrv keeps no responses; use stream", False),
    refused("prompt", "cannot be given: vsrv keeps no prompt templates; send instructions and input"),
    refused("context_management", "cannot be given: send what the model shall read", []),
    refused("moderation", "cannot be given: nothing is run on the server beside the model"),
    _object("stream_options", "accepted, without effect"),
    *_ignored("service_tier client_metadata prompt_cache_retention prompt_cache_options access_programs background_options image"),
)
TRANSLATED: Mapping[str, Table] = {
    MESSAGES: table(*_PROMPT, *_SHARED, *_ANTHROPIC, *_WITHOUT_EFFECT),
    COUNT_TOKENS: table(*_PROMPT, *_COUNTED, *_WITHOUT_EFFECT),
    RESPONSES: table(*_SHARED, *_OPENAI),
    INPUT_TOKENS: table(*_SHARED, *_OPENAI),
}
# fmt: on
