"""Attention and sampling alone: how near they come to the rates of this device, and to torch's own kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from target import Case, Context, Target

from vsrv.kernels import AttentionMetadata, HeadShape, Kernels, KernelShapes
from vsrv.kernels.cuda import layout
from vsrv.messages import SamplingParams

_L2_BYTES = 64 << 20  # of the largest device; rotating buffers are three times this


@dataclass(frozen=True)
class Setting:
    """A batch of decodes or prefills over a pool of random values, `copies` times at other places."""

    calls: list[Callable[[], Any]]
    kv_bytes: int  # of one call
    plan: Callable[[], Any]


def _heads(tiny: bool) -> HeadShape:
    """Those of Qwen3-8B."""
    return HeadShape(2, 1, 64, 0.125) if tiny else HeadShape(32, 8, 128, 128**-0.5)


def decode_setting(target: Target, lengths: list[int], heads: HeadShape) -> Setting:
    kernels, device = target.kernels(), target.torch_device
    block_bytes = layout.block_bytes(heads.num_kv_heads, heads.head_dim)
    counts = [-(-length // layout.BLOCK) for length in lengths]
    kv_bytes = 2 * sum(lengths) * block_bytes // layout.BLOCK
    copies = 2 if target.tiny else max(2, -(-3 * _L2_BYTES // kv_bytes))
    total = sum(counts) * copies
    pools = [
        torch.randn(total * block_bytes // 2, device=device).to(torch.bfloat16).view(total, -1)
        for _ in range(2)
    ]
    order = torch.randperm(total, device=device).int()
    kernels.prepare(KernelShapes("bfloat16", 64, 64, "silu", False, (heads,), len(lengths), len(lengths)))
    width = heads.head_dim * heads.num_heads
    offsets = torch.arange(len(lengths) + 1, dtype=torch.int32, device=device)
    lens = torch.tensor(lengths, dtype=torch.int32, device=device)
    calls: list[Callable[[], Any]] = []
    plan: Callable[[], Any] = lambda: None  # noqa: E731 - replaced below
    at = 0
    for _ in range(copies):
        tables = torch.zeros(len(lengths), max(counts), dtype=torch.int32, device=device)
        for row, count in enumerate(counts):
            tables[row, :count] = order[at : at + count]
            at += count
        qkv = torch.randn(len(lengths), width + 2 * heads.num_kv_heads * heads.head_dim, device=device).to(
            torch.bfloat16
        )
        out = torch.full((len(lengths), width), float("nan"), dtype=torch.bfloat16, device=device)
        meta = AttentionMetadata(
            None, None, tables, offsets, lens, max(lengths), len(lengths), (1,) * len(lengths)
        )
        plan = _planned(kernels, meta, heads)
        calls.append(_attention(kernels, qkv, (pools[0], pools[1]), meta, heads, out))
    return Setting(calls, kv_bytes, plan)


def _planned(kernels: Kernels, meta: AttentionMetadata, heads: HeadShape) -> Callable[[], Any]:
    def plan() -> Any:
        return kernels.plan(meta, (heads,))

    object.__setattr__(meta, "plan", plan())
    return plan


def _attention(
    kernels: Kernels,
    qkv: torch.Tensor,
    pools: tuple[torch.Tensor, torch.Tensor],
    meta: AttentionMetadata,
    heads: HeadShape,
    out: torch.Tensor,
) -> Callable[[], Any]:
    return lambda: kernels.attention(qkv, pools, meta, heads, "bfloat16", out)


def decode_bench(name: str, lengths: list[int], must: float | None, aim: float | None) -> Case:
    def run(context: Context) -> str:
        target = context.target
        setting = decode_setting(target, [32, 20] if target.tiny else lengths, _heads(target.tiny))
        milliseconds = target.time_ms(setting.calls)
        again = target.time_ms(setting.calls)
        rate, copy = setting.kv_bytes / milliseconds * 1e3, target.copy_rate()
        context.out.figure(f"decode attention, {name}, over the copy rate", 100 * rate / copy, "%", must, aim)
        context.out.figure(f"decode plan, {name}", target.time_ms([setting.plan] * 4) * 1e3, "us")
        return f"{setting.kv_bytes / 2**20:.0f} MiB in {milliseconds * 1e3:.1f} us (again {again * 1e3:.1f}), {rate / 1e12:.2f} of {copy / 1e12:.2f} TB/s"

    return Case(f"decode {name}", run)


def prefill_bench(context: Context) -> str:
    target = context.target
    tokens, heads = (32, _heads(True)) if target.tiny else (8192, _heads(False))
    kernels, device = target.kernels(), target.torch_device
    blocks = -(-tokens // layout.BLOCK)
    size = layout.block_bytes(heads.num_kv_heads, heads.head_dim) // 2
    k_pool, v_pool = (torch.randn(blocks, size, device=device).to(torch.bfloat16) for _ in range(2))
    kernels.prepare(KernelShapes("bfloat16", 64, 64, "silu", False, (heads,), 1, tokens))
    width = heads.num_heads * heads.head_dim
    qkv = torch.randn(tokens, width + 2 * heads.num_kv_heads * heads.head_dim, device=device).to(
        torch.bfloat16
    )
    out = torch.empty(tokens, width, dtype=torch.bfloat16, device=device)
    meta = AttentionMetadata(
        None, None, torch.randperm(blocks, device=device).int()[None], torch.tensor([0, tokens], dtype=torch.int32, device=device),
        torch.tensor([tokens], dtype=torch.int32, device=device), tokens, 0, (tokens,),
    )  # fmt: skip
    _planned(kernels, meta, heads)  # not in the loop: it uploads its list from the host
    milliseconds = target.time_ms([_attention(kernels, qkv, (k_pool, v_pool), meta, heads, out)] * 2)
    flops = 4 * heads.head_dim * heads.num_heads * tokens * (tokens + 1) // 2
    rate = flops / milliseconds / 1e9
    context.out.figure("prefill attention, head_dim 128, 8k causal", rate, "TFLOP/s", 200, 300)
    peer = _flash_ms(target, tokens, heads, context)
    context.out.figure("torch's flash SDPA, the same shape", flops / peer / 1e9, "TFLOP/s")
    context.out.figure("prefill attention over torch's flash SDPA", peer / milliseconds, "x")
    return f"{milliseconds:.3f} ms, torch {peer:.3f} ms"


def _flash_ms(target: Target, tokens: int, heads: HeadShape, context: Context) -> float:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    shape = (1, heads.num_heads, tokens, heads.head_dim)
    q, k, v = (torch.randn(shape, device=target.torch_device).to(torch.bfloat16) for _ in range(3))

    def call() -> Any:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    return target.time_ms([call] * 2)


def sampling_bench(name: str, options: dict[str, Any], must: float | None, aim: float | None) -> Case:
    def run(context: Context) -> str:
        target = context.target
        vocabulary, rows, copies = (101, 2, 2) if target.tiny else (151936, 64, 6)
        kernels, device = target.kernels(), target.torch_device
        kernels.prepare(KernelShapes("bfloat16", 64, 64, "silu", False, (_heads(True),), rows, rows))
        state = kernels.new_sampling_state(rows, vocabulary)
        for row in range(rows):
            state.assign(row, SamplingParams(10**6, **options), row, [1, 2], [])
        slots = torch.arange(rows, dtype=torch.int32, device=device)
        out = torch.full((rows,), -1, dtype=torch.int32, device=device)
        stride = -(-vocabulary // 4) * 4
        buffers = [(torch.randn(rows, stride, device=device) * 3)[:, :vocabulary] for _ in range(copies)]
        calls: list[Callable[[], Any]] = [_sample(kernels, logits, slots, state, out) for logits in buffers]
        microseconds = target.time_ms(calls) * 1e3
        floor = rows * vocabulary * 4 / target.copy_rate() * 1e6
        assert int(out.min()) >= 0
        context.out.figure(f"sampling, 152k x 64, {name}", microseconds, "us", must, aim, lower=True)
        return f"{microseconds:.1f} us; reading the logits once takes {floor:.1f} us"

    return Case(f"sampling {name}", run)


def _sample(
    kernels: Kernels, logits: torch.Tensor, slots: torch.Tensor, state: Any, out: torch.Tensor
) -> Callable[[], Any]:
    return lambda: kernels.sample(logits, slots, state, None, out)


def bench_cases(tiny: bool) -> list[Case]:
    ragged = [(index * 997) % 3500 + 64 for index in range(80)]
    return [
        decode_bench("0.5 GB a launch (32 x 4k)", [4096] * 32, 80, 90),
        decode_bench("8 x 2k", [2048] * 8, 40, 60),
        Case("prefill 8k", prefill_bench),
        sampling_bench("greedy", {"temperature": 0.0}, 30, 20),
        sampling_bench("top-k + top-p", {"temperature": 0.8, "top_k": 50, "top_p": 0.9}, 100, 60),
        decode_bench("ragged, 80 x 64 to 3.5k", ragged, None, None),
        decode_bench("1 x 32k", [32768], None, None),
        sampling_bench(
            "penalties, top-p", {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.1}, None, None
        ),
    ]
