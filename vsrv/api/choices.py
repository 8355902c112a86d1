"""How many sequences a request makes of each prompt, and how those that become its choices are found: n, best_of, beam search."""

from __future__ import annotations

from dataclasses import dataclass

from vsrv.api.fields import Fields, invalid, unsupported
from vsrv.messages import SamplingParams

# What a search over the model's own probabilities has no use for; sampling parameters are without effect on it, as in vLLM.
_NOT_WITH_BEAMS = """logit_bias allowed_token_ids bad_words frequency_penalty presence_penalty repetition_penalty min_tokens stop
    stop_token_ids suffix""".split()


@dataclass(frozen=True, slots=True)
class Choices:
    """`best_of` is 0 where every sequence is a choice. `n` is the width of a beam search."""

    n: int
    best_of: int = 0
    beam_search: bool = False
    length_penalty: float = 1.0


def read_choices(fields: Fields, params: SamplingParams, max_logprobs: int, is_chat: bool) -> Choices:
    """Raises UserError 400 naming the field."""
    n, best_of = fields["n"], fields["best_of"] or fields["n"]
    if fields["use_beam_search"]:
        return _beams(fields, params, max_logprobs)
    if params.temperature == 0 and max(n, best_of) > 1:
        name = "n" if n > 1 else "best_of"
        raise invalid(name, "must be 1 with temperature 0: all choices would be the same")
    if best_of == n:
        return Choices(n)
    if is_chat:
        raise unsupported("best_of", "other than n is of /v1/completions")
    if best_of < n:
        raise invalid("best_of", f"must not be below n ({n})")
    if fields["stream"]:
        raise invalid("best_of", "above n is not available with stream")
    return Choices(n, best_of)


def _beams(fields: Fields, params: SamplingParams, max_logprobs: int) -> Choices:
    n = fields["n"]
    if fields["best_of"] not in (None, n):
        raise invalid("best_of", "must equal n with use_beam_search")
    if 2 * n > max_logprobs:
        raise invalid("n", f"must not be above {max_logprobs // 2} with use_beam_search (--max-logprobs)")
    for name in _NOT_WITH_BEAMS:
        if fields.takes(name) and fields.has(name) and fields[name] not in (0, 1.0, (), ""):
            raise unsupported(name, "is not supported with use_beam_search")
    if params.grammar:
        raise unsupported("use_beam_search", "is not supported together with structured outputs or tools")
    return Choices(n, beam_search=True, length_penalty=fields["length_penalty"])
