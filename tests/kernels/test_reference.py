"""The specification itself, against things that nobody here wrote."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from vsrv.kernels import reference
from vsrv.messages import SamplingParams


def test_philox_known_answers() -> None:
    """Test vectors of Random123 (kat_vectors, philox4x32 10) with the counter words that vsrv uses (c2 = c3 = 0)."""
    assert [f"{w:08x}" for w in reference.philox(0, 0, 0)] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


def test_attention_is_torchs() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(n, h, 16)).astype(np.float32) for n, h in ((5, 4), (12, 2), (12, 2)))
    mask = torch.ones(5, 12, dtype=torch.bool).tril(7)
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(torch.from_numpy(a).transpose(0, 1)[None] for a in (q, k, v)), attn_mask=mask, enable_gqa=True
    )
    actual = reference.attention(q, k, v, 16**-0.5, 0)
    np.testing.assert_allclose(actual, expected[0].transpose(0, 1).numpy(), atol=1e-5)


def test_penalties_and_filters_are_transformers() -> None:
    rng = np.random.default_rng(1)
    logits = (rng.normal(size=40) * 3).astype(np.float32)
    prompt, output = [3, 4, 5], [5, 6, 6]
    row, ids = torch.from_numpy(logits)[None], torch.tensor([prompt + output])
    expected = transformers.RepetitionPenaltyLogitsProcessor(1.3)(ids, row.clone())
    actual = reference.processed_logits(logits, SamplingParams(1, repetition_penalty=1.3), prompt, output)
    np.testing.assert_allclose(actual, expected[0].numpy(), rtol=1e-6)
    params = SamplingParams(1, temperature=0.7, top_k=12, top_p=0.8, min_p=0.02)
    for warper in (
        transformers.TemperatureLogitsWarper(0.7),
        transformers.MinPLogitsWarper(0.02),
        transformers.TopKLogitsWarper(12),
        transformers.TopPLogitsWarper(0.8),
    ):
        row = warper(ids, row)
    actual = reference.filtered(logits.astype(np.float64), params)
    np.testing.assert_array_equal(np.isinf(actual), torch.isinf(row[0]).numpy())


def test_gumbel_sampling_follows_the_distribution() -> None:
    logits = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32))
    params = SamplingParams(1, temperature=1.0)
    draws = np.array([reference.sample(logits, params, seed, [], []) for seed in range(4000)])
    shares = np.bincount(draws, minlength=4) / len(draws)
    assert np.abs(shares - [0.5, 0.25, 0.15, 0.1]).max() < 0.03


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh"])
def test_activations_are_torchs(activation: str) -> None:
    x = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    gate, up = x.chunk(2, -1)
    function = torch.nn.functional
    active = (
        function.silu(gate)
        if activation == "silu"
        else function.gelu(gate, approximate="tanh" if "tanh" in activation else "none")
    )
    np.testing.assert_allclose(
        reference.gated(x.numpy(), activation), (active * up).numpy(), rtol=1e-5, atol=1e-6
    )
