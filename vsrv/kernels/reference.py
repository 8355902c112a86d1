"""The specification of every kernel in plain numpy: arrays in, arrays out, no speed. Tests compare the twins with this.

Shapes as in `kernels/__init__.py`; KV here is one contiguous history for each sequence, because paging must not change any result.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vsrv.messages import SamplingParams

Floats = NDArray[np.float32]


def linear(x: Floats, weight: Floats, bias: Floats | None) -> Floats:
    """x [T, K] @ weight [N, K].T (+ bias [N])."""
    out = x.astype(np.float64) @ weight.astype(np.float64).T
    return (out if bias is None else out + bias).astype(np.float32)


def rms_norm(x: Floats, weight: Floats, eps: float) -> Floats:
    """Zhang & Sennrich 2019."""
    wide = x.astype(np.float64)
    return (wide / np.sqrt((wide**2).mean(-1, keepdims=True) + eps) * weight).astype(np.float32)


def gated(gate_up: Floats, activation: str) -> Floats:
    """[T, 2I] → act(gate) * up [T, I]."""
    from math import erf

    gate, up = np.split(gate_up.astype(np.float64), 2, -1)
    if activation == "silu":
        active = gate / (1 + np.exp(-gate))
    elif activation == "gelu":
        active = 0.5 * gate * (1 + np.vectorize(erf)(gate / np.sqrt(2)))
    else:
        active = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
    return (active * up).astype(np.float32)


def rotate(x: Floats, cos: Floats, sin: Floats) -> Floats:
    """Rotary embedding (Su et al. 2021) on halves: x [T, heads, D], cos and sin [T, D/2]."""
    a, b = np.split(x, 2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return np.concatenate((a * cos - b * sin, b * cos + a * sin), -1)


def attention(q: Floats, k: Floats, v: Floats, scale: float, window: int) -> Floats:
    """One sequence: the last len(q) positions of the history k, v [L, Hkv, D] ask; q [T, H, D] → [T, H, D]."""
    tokens, heads, _ = q.shape
    length, kv_heads, _ = k.shape
    out = np.empty_like(q)
    for t in range(tokens):
        position = length - tokens + t
        first = max(0, position - window + 1) if window else 0
        for h in range(heads):
            keys, values = (
                k[first : position + 1, h * kv_heads // heads],
                v[first : position + 1, h * kv_heads // heads],
            )
            scores = keys.astype(np.float64) @ q[t, h] * scale
            weights = np.exp(scores - scores.max())
            out[t, h] = (weights / weights.sum()) @ values
    return out


def philox(seed: int, step: int, quad: int) -> tuple[int, int, int, int]:
    """Philox4x32-10 (Salmon et al. 2011): key = seed, counter = (quad, step, 0, 0)."""
    mask = 0xFFFFFFFF
    k0, k1 = seed & mask, (seed >> 32) & mask
    c0, c1, c2, c3 = quad & mask, step & mask, 0, 0
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & mask, (p0 >> 32) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return c0, c1, c2, c3


def gumbel(seed: int, step: int, vocab_size: int) -> NDArray[np.float64]:
    """Noise of every token at one step; token i takes word i % 4 of counter i // 4."""
    words = [word for quad in range((vocab_size + 3) // 4) for word in philox(seed & (2**64 - 1), step, quad)]
    u = (np.array(words[:vocab_size], np.float64) + 0.5) / 2**32
    return -np.log(-np.log1p(-u))


def processed_logits(
    logits: Floats,
    params: SamplingParams,
    prompt_ids: list[int],
    output_ids: list[int],
    mask: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Logits after masks, bias and penalties, before temperature; -inf marks what cannot come.

    Order: grammar mask, allowed ids, bad words, minimum length, bias, repetition, frequency, presence.
    """
    x = logits.astype(np.float64).copy()
    if mask is not None:
        x[~mask] = -np.inf
    if params.allowed_token_ids:
        allowed = np.zeros(len(x), bool)
        allowed[list(params.allowed_token_ids)] = True
        x[~allowed] = -np.inf
    for word in params.bad_words:
        before = list(word[:-1])
        if len(before) <= len(output_ids) and output_ids[len(output_ids) - len(before) :] == before:
            x[word[-1]] = -np.inf
    if len(output_ids) < params.min_tokens:
        stops = [*params.stop_token_ids, *([] if params.eos_token_id is None else [params.eos_token_id])]
        x[stops] = -np.inf
    for token, bias in params.logit_bias:
        x[token] += bias
    counts = np.bincount(np.array(output_ids, np.int64), minlength=len(x))
    seen = counts > 0
    seen[prompt_ids] = True
    x = np.where(seen, np.where(x > 0, x / params.repetition_penalty, x * params.repetition_penalty), x)
    return x - params.frequency_penalty * counts - params.presence_penalty * (counts > 0)


def filtered(x: NDArray[np.float64], params: SamplingParams) -> NDArray[np.float64]:
    """Temperature, min-p, top-k (ties kept), top-p: logits with -inf where a token is dropped."""
    x = x / params.temperature
    if params.min_p > 0:
        x = np.where(x < x.max() + np.log(params.min_p), -np.inf, x)
    if 0 < params.top_k < len(x):
        x = np.where(x < np.sort(x)[-params.top_k], -np.inf, x)
    if params.top_p < 1:
        weights = np.exp(x - x.max())
        weights /= weights.sum()
        above = np.array([weights[x > value].sum() for value in x])
        x = np.where(above >= params.top_p, -np.inf, x)
    return x


def sample(
    logits: Floats,
    params: SamplingParams,
    seed: int,
    prompt_ids: list[int],
    output_ids: list[int],
    mask: NDArray[np.bool_] | None = None,
) -> int:
    """The token of one row: argmax, or argmax with Gumbel noise (Maddison et al. 2014)."""
    x = processed_logits(logits, params, prompt_ids, output_ids, mask)
    if params.temperature == 0:
        return int(x.argmax())
    return int((filtered(x, params) + gumbel(seed, len(output_ids), len(x))).argmax())


def logprobs(logits: Floats, chosen: int, k: int) -> tuple[list[int], list[float], int]:
    """Raw log_softmax: ids and values of the chosen token and the k best (ties by rising id), and the chosen one's rank."""
    x = logits.astype(np.float64)
    values = x - x.max() - np.log(np.exp(x - x.max()).sum())
    best = np.lexsort((np.arange(len(x)), -x))[:k]
    ids = [chosen, *best.tolist()]
    return ids, [float(values[i]) for i in ids], int((x > x[chosen]).sum()) + 1
