"""The numba twins against the numpy specification: every output element, poisoned buffers, and the same bits in any batch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sampling_table import SAMPLINGS

from vsrv.kernels import AttentionMetadata, HeadShape, Kernels, reference
from vsrv.kernels.facts import kernel_facts
from vsrv.messages import SamplingParams

DTYPES = ("float32", "bfloat16", "float16")


def rounded(array: np.ndarray, dtype: str) -> torch.Tensor:
    return torch.from_numpy(array).to(getattr(torch, dtype))


def poisoned(*shape: int) -> torch.Tensor:
    return torch.full(shape, float("nan"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "n", "k"),
    [(1, 32, 8), (1, 100, 64), (2, 33, 7), (3, 64, 40), (5, 96, 16), (6, 31, 5), (13, 150, 64), (40, 70, 48)],
)
@pytest.mark.parametrize("bias", [False, True])
def test_linear(kernels: Kernels, dtype: str, rows: int, n: int, k: int, bias: bool) -> None:
    rng = np.random.default_rng(rows * n + k)
    weight = rounded(rng.normal(size=(n, k)).astype(np.float32), dtype)
    x = rng.normal(size=(rows, k)).astype(np.float32)
    offset = rng.normal(size=n).astype(np.float32) if bias else None
    packed = kernels.pack_linear(weight, None if offset is None else torch.from_numpy(offset), dtype)
    out = poisoned(rows + 1, n + 3)
    kernels.linear(torch.from_numpy(x), packed, out)
    expected = reference.linear(x, weight.float().numpy(), offset)
    np.testing.assert_allclose(out[:rows, :n].numpy(), expected, rtol=1e-4, atol=1e-4)
    assert torch.isnan(out[rows:]).all() and torch.isnan(out[:, n:]).all(), (
        "wrote outside its rows and columns"
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_gives_the_same_bits_in_any_batch(kernels: Kernels, dtype: str) -> None:
    rng = np.random.default_rng(0)
    packed = kernels.pack_linear(rounded(rng.normal(size=(200, 300)).astype(np.float32), dtype), None, dtype)
    x = torch.from_numpy(rng.normal(size=(50, 300)).astype(np.float32))
    whole = poisoned(50, 200)
    kernels.linear(x, packed, whole)
    for start, end in ((0, 1), (3, 5), (7, 10), (10, 15), (20, 27), (30, 50)):
        part = poisoned(end - start, 200)
        kernels.linear(x[start:end].contiguous(), packed, part)
        assert torch.equal(part, whole[start:end])


def test_a_misplaced_kv_cache_is_refused(kernels: Kernels) -> None:
    """Aligned loads would end the process with signal 11."""
    heads = HeadShape(1, 1, 32, 1.0)
    size = kernels.kv_block_bytes(1, 32, "bfloat16")[0]
    memory = torch.zeros(2 * size + 128, dtype=torch.uint8)
    start = -memory.data_ptr() % 64
    good, bad = (memory[at : at + 2 * size].view(2, size) for at in (start, start + 16))
    one = torch.zeros(2, dtype=torch.int32)
    meta = AttentionMetadata(
        one[:1], one[:1], one[:1].view(1, 1), torch.arange(2, dtype=torch.int32), one[:1] + 1, 1
    )
    qkv, out = torch.zeros(1, 96), torch.zeros(1, 32)
    kernels.attention(qkv, (good, good), meta, heads, "bfloat16", out)
    with pytest.raises(ValueError, match="64-byte"):
        kernels.attention(qkv, (good, bad), meta, heads, "bfloat16", out)


@pytest.mark.parametrize("dtype", DTYPES)
def test_embedding_reads_the_packed_rows(kernels: Kernels, dtype: str) -> None:
    weight = rounded(np.random.default_rng(0).normal(size=(70, 40)).astype(np.float32), dtype)
    packed = kernels.pack_linear(weight, None, dtype)
    ids = torch.tensor([0, 69, 31, 32, 33, 5, 5], dtype=torch.int32)
    out = poisoned(7, 40)
    kernels.embedding(ids, packed, out)
    assert torch.equal(out, weight.float()[ids.long()])


@pytest.mark.parametrize(("rows", "width"), [(1, 8), (3, 64), (40, 1000)])
def test_norms(kernels: Kernels, rows: int, width: int) -> None:
    rng = np.random.default_rng(width)
    x, residual = (rng.normal(size=(rows, width)).astype(np.float32) for _ in range(2))
    weight = rng.uniform(0.5, 2, width).astype(np.float32)
    out = poisoned(rows, width)
    kernels.rms_norm(torch.from_numpy(x), torch.from_numpy(weight), 1e-5, out)
    np.testing.assert_allclose(out.numpy(), reference.rms_norm(x, weight, 1e-5), rtol=1e-5, atol=1e-6)
    held, out = torch.from_numpy(residual.copy()), poisoned(rows, width)
    kernels.add_rms_norm(torch.from_numpy(x), held, torch.from_numpy(weight), 1e-5, out)
    np.testing.assert_array_equal(held.numpy(), residual + x)
    np.testing.assert_allclose(
        out.numpy(), reference.rms_norm(residual + x, weight, 1e-5), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh"])
def test_gated(kernels: Kernels, activation: str) -> None:
    x = (np.random.default_rng(0).normal(size=(9, 130)) * 8).astype(np.float32)
    out = poisoned(9, 65)
    kernels.gated(torch.from_numpy(x), activation, out)
    np.testing.assert_allclose(out.numpy(), reference.gated(x, activation), rtol=2e-5, atol=2e-6)


class Paged:
    """Sequences with histories, and the arrays that describe a batch of their newest tokens; unused KV is poisoned."""

    def __init__(
        self, kernels: Kernels, heads: HeadShape, dtype: str, lengths: list[tuple[int, int]], norms: bool
    ) -> None:
        self.kernels, self.heads, self.dtype, self.lengths = kernels, heads, dtype, lengths
        rng = np.random.default_rng(heads.head_dim + len(lengths))
        size = kernels.block_size
        blocks = sum(-(-total // size) for total, _ in lengths) + 2
        self.order = rng.permutation(blocks).tolist()
        sizes = kernels.kv_block_bytes(heads.num_kv_heads, heads.head_dim, dtype)
        self.cache = tuple(
            torch.full((blocks, n), 0xFF, dtype=torch.uint8) for n in sizes
        )  # all bits set is NaN in every type
        width = (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim
        self.raw = [rng.normal(size=(total, width)).astype(np.float32) for total, _ in lengths]
        angles = np.arange(600)[:, None] * 100.0 ** (-np.arange(heads.head_dim // 2) / heads.head_dim)
        self.cos_sin = torch.from_numpy(np.stack((np.cos(angles), np.sin(angles)), 1).astype(np.float32))
        weight = rng.uniform(0.5, 1.5, heads.head_dim).astype(np.float32)
        self.norm = weight if norms else None
        self.tables, taken = [], 0
        for total, _ in lengths:
            count = -(-total // size)
            self.tables.append(self.order[taken : taken + count])
            taken += count

    def run(self, spans: list[tuple[int, int, int]]) -> torch.Tensor:
        """spans: (sequence, first token, end). Writes K and V of these tokens and returns attention [T, H*D]."""
        size, heads = self.kernels.block_size, self.heads
        positions = np.concatenate([np.arange(a, b) for _, a, b in spans]).astype(np.int32)
        slots = np.concatenate(
            [[self.tables[s][p // size] * size + p % size for p in range(a, b)] for s, a, b in spans]
        ).astype(np.int32)
        tables = np.zeros((len(spans), max(len(t) for t in self.tables)), np.int32)
        for row, (s, _, _) in enumerate(spans):
            tables[row, : len(self.tables[s])] = self.tables[s]
        offsets = np.cumsum([0, *(b - a for _, a, b in spans)]).astype(np.int32)
        ends = np.array([b for _, _, b in spans], np.int32)
        meta = AttentionMetadata(
            *(torch.from_numpy(a) for a in (positions, slots, tables, offsets, ends)),
            int(ends.max()),
        )
        qkv = torch.from_numpy(np.concatenate([self.raw[s][a:b] for s, a, b in spans]))
        norm = None if self.norm is None else torch.from_numpy(self.norm)
        self.kernels.rope_cache(qkv, meta, self.cos_sin, (norm, norm, 1e-6), self.cache, heads, self.dtype)
        out = poisoned(len(positions), heads.num_heads * heads.head_dim)
        self.kernels.attention(qkv, self.cache, meta, heads, self.dtype, out)
        return out

    def expected(self, s: int, first: int, end: int) -> np.ndarray:
        heads, dim = self.heads, self.heads.head_dim
        raw = self.raw[s][:end].reshape(end, -1, dim)
        q, k, v = np.split(raw, [heads.num_heads, heads.num_heads + heads.num_kv_heads], 1)
        if self.norm is not None:
            q, k = reference.rms_norm(q, self.norm, 1e-6), reference.rms_norm(k, self.norm, 1e-6)
        cos, sin = self.cos_sin[:end, 0].numpy(), self.cos_sin[:end, 1].numpy()
        q, k = reference.rotate(q, cos, sin), reference.rotate(k, cos, sin)
        k, v = (rounded(np.ascontiguousarray(a), self.dtype).float().numpy() for a in (k, v))
        return reference.attention(q[first:], k, v, heads.scale, heads.sliding_window).reshape(
            end - first, -1
        )


SHAPES = [(4, 4, 32), (4, 2, 64), (8, 1, 80), (6, 2, 96), (8, 2, 128), (3, 3, 256), (8, 4, 36)]


@pytest.mark.parametrize(
    ("dtype", "window"), [*((dtype, 0) for dtype in DTYPES), *(("bfloat16", w) for w in (1, 19, 64))]
)
@pytest.mark.parametrize(("num_heads", "num_kv_heads", "head_dim"), SHAPES)
def test_paged_attention(
    kernels: Kernels, dtype: str, num_heads: int, num_kv_heads: int, head_dim: int, window: int
) -> None:
    heads = HeadShape(num_heads, num_kv_heads, head_dim, head_dim**-0.5, window)
    lengths = [(70, 70), (33, 33), (1, 1), (64, 64)]
    paged = Paged(kernels, heads, dtype, lengths, norms=head_dim in (64, 128))
    spans = [(0, 0, 70), (1, 0, 32), (2, 0, 1), (3, 0, 50)]  # whole prompts and chunks
    out = paged.run(spans)
    following = [
        (1, 32, 33),
        (3, 50, 64),
        (0, 69, 70),
    ]  # a decode, a chunk behind a cached prefix, a recomputed token
    later = paged.run(following)
    for result, batch in ((out, spans), (later, following)):
        at = 0
        for s, first, end in batch:
            np.testing.assert_allclose(
                result[at : at + end - first].numpy(), paged.expected(s, first, end), rtol=2e-4, atol=2e-4
            )
            at += end - first
    assert torch.equal(later[-1], out[69]), "the same token in another batch has other bits"


@pytest.mark.parametrize("options", SAMPLINGS, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_sampling_equals_the_specification(
    kernels: Kernels, options: dict[str, object], masked: bool
) -> None:
    vocab, rows = 101, 6
    rng = np.random.default_rng(5)
    state = kernels.new_sampling_state(rows + 3, vocab)
    params = SamplingParams(50, **options)  # type: ignore[arg-type]
    slots = torch.tensor([7, 0, 3, 1, 8, 2], dtype=torch.int32)
    prompts = [rng.integers(0, vocab, 6).tolist() for _ in range(rows)]
    outputs: list[list[int]] = [
        rng.integers(0, 14, row).tolist() for row in range(rows)
    ]  # as after a preemption
    for row in range(rows):
        state.assign(int(slots[row]), params, 1000 + row, prompts[row], outputs[row])
    for _ in range(12):
        logits = (rng.normal(size=(rows, vocab)) * 3).astype(np.float32)
        mask = rng.random((rows, vocab)) < 0.5 if masked else None
        if mask is not None:
            mask[:, 3] = True
        bits = (
            None
            if mask is None
            else torch.from_numpy(
                np.packbits(np.pad(mask, ((0, 0), (0, 27))), axis=1, bitorder="little").view(np.int32).copy()
            )
        )
        before = logits.copy()
        ids = torch.full((rows,), -1, dtype=torch.int32)
        kernels.sample(torch.from_numpy(logits), slots, state, bits, ids)
        np.testing.assert_array_equal(logits, before, "logits are read again for logprobs")
        for row in range(rows):
            expected = reference.sample(
                logits[row],
                params,
                1000 + row,
                prompts[row],
                outputs[row],
                None if mask is None else mask[row],
            )
            assert int(ids[row]) == expected
            outputs[row].append(expected)
            assert int(state.last_token[int(slots[row])]) == expected


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {}, {"top_k": 5, "top_p": 0.8, "min_p": 0.1}], ids=str
)
def test_a_row_without_an_allowed_token_gives_one_all_the_same(
    kernels: Kernels, options: dict[str, object]
) -> None:
    """The engine finds it out by its own check; the neighbours' tokens are what they are."""
    logits = torch.from_numpy(np.random.default_rng(5).normal(size=(2, 96)).astype(np.float32))
    slots, ids = torch.tensor([1, 0], dtype=torch.int32), torch.full((2, 2), -1, dtype=torch.int32)
    mask = torch.tensor([[0, 0, 0], [-1, -1, -1]], dtype=torch.int32)
    for place, bits in enumerate((mask, None)):
        state = kernels.new_sampling_state(2, 96)
        for row in range(2):
            state.assign(int(slots[row]), SamplingParams(9, **options), row, [1], [])  # type: ignore[arg-type]
        kernels.sample(logits, slots, state, bits, ids[place])
    assert 0 <= int(ids[0, 0]) < 96 and ids[0, 1] == ids[1, 1]


def test_sampling_noise_belongs_to_the_request(kernels: Kernels) -> None:
    logits = torch.zeros(1, 50)
    params = SamplingParams(9, temperature=1.0)

    def draw(slot: int, slots: int, seed: int) -> int:
        state = kernels.new_sampling_state(slots, 50)
        state.assign(slot, params, seed, [1], [])
        out = torch.empty(1, dtype=torch.int32)
        kernels.sample(logits, torch.tensor([slot], dtype=torch.int32), state, None, out)
        return int(out)

    assert draw(0, 1, 5) == draw(3, 8, 5)
    assert len({draw(0, 1, seed) for seed in range(20)}) > 5


def test_a_slot_forgets_its_former_owner(kernels: Kernels) -> None:
    state = kernels.new_sampling_state(1, 20)
    logits = torch.zeros(1, 20)
    logits[0, 4] = 1.0
    slot, out = torch.zeros(1, dtype=torch.int32), torch.empty(1, dtype=torch.int32)
    heavy = SamplingParams(
        9,
        temperature=0.0,
        frequency_penalty=2.0,
        logit_bias=((6, 50.0),),
        allowed_token_ids=(6,),
        bad_words=((4,),),
        min_tokens=5,
        stop_token_ids=(4,),
    )
    for params, expected in (
        (heavy, 6),
        (SamplingParams(9, temperature=0.0), 4),
        (SamplingParams(9, temperature=0.0, presence_penalty=0.5), 4),
    ):
        state.assign(0, params, 0, [4], [])
        kernels.sample(logits, slot, state, None, out)
        assert int(out) == expected
        state.release(0)


def test_wrong_slots_are_refused(kernels: Kernels) -> None:
    state = kernels.new_sampling_state(2, 20)
    for slot in (-1, 2):
        with pytest.raises(ValueError, match="slot"):
            kernels.sample(
                torch.zeros(1, 20),
                torch.tensor([slot], dtype=torch.int32),
                state,
                None,
                torch.empty(1, dtype=torch.int32),
            )


@pytest.mark.parametrize(("vocab", "k"), [(5, 5), (101, 0), (101, 1), (1000, 20)])
def test_logprobs(kernels: Kernels, vocab: int, k: int) -> None:
    rng = np.random.default_rng(vocab)
    logits = (rng.normal(size=(7, vocab)) * 5).round(1).astype(np.float32)  # rounding makes ties
    chosen = rng.integers(0, vocab, 7).astype(np.int32)
    ids, values, ranks = (
        torch.full((7, k + 1), -1, dtype=torch.int32),
        poisoned(7, k + 1),
        torch.full((7,), -1, dtype=torch.int32),
    )
    kernels.logprobs(torch.from_numpy(logits), torch.from_numpy(chosen), k, ids, values, ranks)
    for row in range(7):
        expected_ids, expected_values, rank = reference.logprobs(logits[row], int(chosen[row]), k)
        assert ids[row].tolist() == expected_ids
        np.testing.assert_allclose(values[row].numpy(), expected_values, rtol=1e-5, atol=1e-5)
        assert int(ranks[row]) == rank
    np.testing.assert_allclose(
        values[:, 0].numpy(),
        torch.from_numpy(logits).log_softmax(-1)[range(7), chosen.tolist()].numpy(),
        atol=1e-5,
    )


def test_large_vocabularies_sample_from_the_right_distribution(kernels: Kernels) -> None:
    vocab, rows = 50000, 400
    rng = np.random.default_rng(0)
    row = rng.normal(size=vocab).astype(np.float32)
    row[[10, 49999]] += 12.0
    weights = np.exp(row - row.max().astype(np.float64))
    weights /= weights.sum()
    state = kernels.new_sampling_state(rows, vocab)
    for slot in range(rows):
        state.assign(slot, SamplingParams(9, temperature=1.0), slot, [], [])
    out = torch.empty(rows, dtype=torch.int32)
    logits = torch.from_numpy(row).repeat(rows, 1)
    kernels.sample(logits, torch.arange(rows, dtype=torch.int32), state, None, out)
    for token in (10, 49999):
        share = float((out == token).float().mean())
        assert abs(share - weights[token]) < 4 * (weights[token] * (1 - weights[token]) / rows) ** 0.5 + 1e-9


def test_the_team_survives_many_small_and_large_jobs(kernels: Kernels) -> None:
    small, large = torch.randn(1, 16), torch.randn(16, 512)
    packed = [kernels.pack_linear(torch.randn(512, k), None, "float32") for k in (16, 512)]
    expected = None
    for i, (x, weight) in itertools.islice(
        enumerate(itertools.cycle(zip((small, large), packed, strict=True))), 4000
    ):
        out = torch.empty(x.shape[0], 512)
        kernels.linear(x, weight, out)
        if i % 2:
            assert expected is None or torch.equal(out, expected)
            expected = out


def test_the_facts_that_are_known_without_kernels(kernels: Kernels) -> None:
    facts = kernel_facts("cpu")
    for name in ("name", "dtypes", "block_size", "activation_dtype"):
        assert getattr(facts, name) == getattr(kernels, name)
    for heads, size, dtype in itertools.product((1, 8), (32, 80, 128), facts.dtypes):
        assert facts.kv_block_bytes(heads, size, dtype) == kernels.kv_block_bytes(heads, size, dtype)
