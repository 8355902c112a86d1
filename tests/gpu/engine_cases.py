"""The whole engine on the device: greedy tokens of transformers in every way of running, and the same bits where they are promised.

Same bits need the same shapes of matrix products: cuBLAS picks other kernels for other batch sizes, which add in another order. So runs that
compute the same padded batches are compared bit by bit (log probabilities too); runs with other batches are each held to the float32
network, wherever its choice is clearer than what bfloat16 does to the logits of transformers itself.
"""

from __future__ import annotations

import tempfile
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from networks import make_engine, save_random
from target import Case, Context, Target

from vsrv.engine.engine import Engine
from vsrv.messages import Failed, Generate, SamplingParams

Requests = dict[int, tuple[list[int], SamplingParams]]
FAMILIES = ("Qwen3", "Llama", "Qwen2", "Mistral")


@dataclass
class Answer:
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)  # of the chosen token and the best ones, in order


def run(engine: Engine, requests: Requests) -> dict[int, Answer]:
    for seq_id, (prompt, params) in requests.items():
        engine.add(Generate(seq_id, array("I", prompt), params))
    answers = {seq_id: Answer() for seq_id in requests}
    while engine.has_work():
        for output in engine.step():
            if isinstance(output, Failed):
                raise AssertionError(
                    f"the engine failed on sequence {output.seq_id}: {output.message} (trace above)"
                )
            answers[output.seq_id].tokens += output.token_ids.tolist()
            if output.logprobs is not None:
                answers[output.seq_id].logprobs += output.logprobs.values.tolist()
        engine.check()
    return answers


class Judge:
    """transformers' float32 network, and how far its own bfloat16 is from it: closer choices may go either way."""

    def __init__(self, target: Target, folder: Path) -> None:
        import transformers

        def network(dtype: torch.dtype) -> Any:
            made = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, attn_implementation="eager"
            )
            return made.to(target.torch_device).eval()

        self._exact, self._rounded = network(torch.float32), network(torch.bfloat16)
        self._device = target.torch_device

    def check(self, requests: Requests, answers: dict[int, Answer]) -> str:
        """Every token that is clear must be the greedy one, and no token may be far from the best."""
        clear = total = 0
        widest = 0.0
        for seq_id, (prompt, params) in requests.items():
            tokens = answers[seq_id].tokens
            assert len(tokens) == params.max_tokens, (
                f"sequence {seq_id}: {len(tokens)} of {params.max_tokens} tokens"
            )
            ids = torch.tensor([prompt + tokens], device=self._device)
            with torch.inference_mode():
                exact, rounded = (
                    net(ids).logits[0, len(prompt) - 1 : -1].float() for net in (self._exact, self._rounded)
                )
            # per position, since noise grows where activations are large; our noise is another draw of the same size
            noises = 7 * (exact - rounded).square().mean(-1).sqrt() + 1e-3
            widest = max(widest, float(noises.max()))
            for place, (row, token, noise) in enumerate(zip(exact, tokens, noises.tolist(), strict=True)):
                best = row.topk(2)
                lead = float(best.values[0] - best.values[1])
                behind = float(best.values[0] - row[token])
                assert behind <= noise, (
                    f"sequence {seq_id}, token {place}: {token} is {behind:.3f} behind {int(best.indices[0])}; bfloat16 explains {noise:.3f}"
                )
                clear += lead > noise
                total += 1
        assert clear >= total // 3, f"only {clear} of {total} choices are clear: this network shows nothing"
        return f"{clear} of {total} tokens clear (margin {widest:.2f}) and equal"


@dataclass
class Lab:
    """The networks of one run, made when they are needed; all in one folder that ends with the process."""

    folder: Any = field(default_factory=tempfile.TemporaryDirectory)
    judges: dict[str, Judge] = field(default_factory=dict)

    def path(self, target: Target, family: str) -> Path:
        path = Path(self.folder.name) / family
        return path if path.exists() else save_random(path, family, target.tiny)

    def judge(self, target: Target, family: str) -> Judge:
        if family not in self.judges:
            self.judges[family] = Judge(target, self.path(target, family))
        return self.judges[family]

    def engine(self, target: Target, family: str, **options: Any) -> Engine:
        sizes: dict[str, Any] = dict(lag=1, graphs=True, blocks=24, seqs=4, budget=24, max_len=128)
        if not target.tiny:
            sizes |= dict(blocks=200, seqs=8, budget=128, max_len=512)
        return make_engine(target, self.path(target, family), **sizes | options)


def _requests(target: Target, tokens: int, **options: Any) -> Requests:
    """More than there are slots, with a shared prefix, a chunked prompt, a single token."""
    low, high = (3, 90) if target.tiny else (3, 900)
    random = torch.Generator().manual_seed(3)
    lengths = (19, 1, 9) if target.tiny else (300, 1, 40, 129, 16, 17, 77, 5, 200, 64, 33)
    prompts = [torch.randint(low, high, (n,), generator=random).tolist() for n in lengths]
    prompts += [[*prompts[0][:17], 7, 8], prompts[0][:17]]
    params = SamplingParams(tokens, ignore_eos=True, **{"temperature": 0.0, **options})
    return {index: (prompt, params) for index, prompt in enumerate(prompts, 1)}


def _uniform(target: Target, count: int, tokens: int) -> Requests:
    """Prompts that all start in one step and end in one step, half of them sampled: every way of running sees the same batches."""
    high = 90 if target.tiny else 900
    requests = {}
    for index in range(count):
        prompt = [3 + (index * 37 + place * 11) % (high - 3) for place in range(4 + index % 2)]
        params = SamplingParams(
            tokens, temperature=0.0 if index % 2 else 0.9, top_p=0.95, seed=index, ignore_eos=True, logprobs=2
        )
        requests[index + 1] = (prompt, params)
    return requests


def _equal(what: str, first: dict[int, Answer], second: dict[int, Answer]) -> None:
    for seq_id, answer in first.items():
        other = second[seq_id]
        if answer.tokens != other.tokens:
            place = next(
                i for i, (a, b) in enumerate(zip(answer.tokens, other.tokens, strict=True)) if a != b
            )
            raise AssertionError(f"{what}: sequence {seq_id} differs from token {place} on")
        if answer.logprobs != other.logprobs:
            away = max(abs(a - b) for a, b in zip(answer.logprobs, other.logprobs, strict=True))
            raise AssertionError(
                f"{what}: sequence {seq_id}: same tokens, log probabilities differ by up to {away:.1e}"
            )


def parity_case(lab: Lab, family: str, lag: int, graphs: bool) -> Case:
    def run_case(context: Context) -> str:
        target = context.target
        requests = _requests(target, 2 if target.tiny else 12)
        engine = lab.engine(target, family, lag=lag, graphs=graphs, caching=True)
        return lab.judge(target, family).check(requests, run(engine, requests))

    return Case(
        f"greedy tokens of transformers: {family}, lag {lag}, {'graphs' if graphs else 'eager'}", run_case
    )


def _same_shapes(lab: Lab, what: str, first: dict[str, Any], second: dict[str, Any]) -> Case:
    """Two ways of running over the same batches: tokens and log probabilities bit by bit."""

    def run_case(context: Context) -> str:
        target = context.target
        count = 2 if target.tiny else 4
        requests = _uniform(target, count, 4 if target.tiny else 40)
        engines = [lab.engine(target, "Qwen3", **options) for options in (first, second)]
        answers = [run(engine, requests) for engine in engines]
        for engine in engines:
            graphs = engine._runner.graphs
            assert graphs is None or count in graphs._graphs, "no graph was captured: nothing was compared"
        _equal(what, *answers)
        return f"{sum(len(answer.logprobs) for answer in answers[0].values())} log probabilities have the same bits"

    return Case(what, run_case)


def preemption_case(lab: Lab) -> Case:
    """All prompts fit at once, their outputs do not: the newest sequences are computed again later."""

    def run_case(context: Context) -> str:
        target = context.target
        count, length, tokens, blocks = (2, 14, 4, 3) if target.tiny else (8, 60, 40, 40)
        params = SamplingParams(tokens, temperature=0.0, ignore_eos=True)
        prompts = [[3 + (index * 31 + place * 7) % 87 for place in range(length)] for index in range(count)]
        requests = {index + 1: (prompt, params) for index, prompt in enumerate(prompts)}
        plenty, tight = (
            lab.engine(target, "Qwen3", budget=512),
            lab.engine(target, "Qwen3", blocks=blocks, budget=512),
        )
        calm, pressed = run(plenty, requests), run(tight, requests)
        assert tight.scheduler.num_preemptions > 0, "the pool was not tight enough to show anything"
        assert plenty.scheduler.num_preemptions == 0
        words = lab.judge(target, "Qwen3").check(requests, pressed)
        return f"{tight.scheduler.num_preemptions} preemptions, {_differences(calm, pressed)}; {words}"

    return Case("preempted = not preempted", run_case)


def solo_case(lab: Lab) -> Case:
    def run_case(context: Context) -> str:
        target = context.target
        requests = _requests(target, 2 if target.tiny else 20)
        if target.tiny:
            requests = {index: requests[index] for index in (2, 3)}
        family = "Qwen3" if target.tiny else "Llama"
        together = run(lab.engine(target, family), requests)
        engine = lab.engine(target, family)
        alone: dict[int, Answer] = {}
        for seq_id, request in requests.items():
            alone |= run(engine, {seq_id: request})
        words = lab.judge(target, family).check(requests, alone)
        lab.judge(target, family).check(requests, together)
        return f"{_differences(together, alone)}; {words}"

    return Case("batch = alone", run_case)


def _differences(first: dict[int, Answer], second: dict[int, Answer]) -> str:
    """Said and not judged: these runs have products of other shapes, and the judge has passed both."""
    parted = [i for i in first if first[i].tokens != second[i].tokens]
    return f"{len(first) - len(parted)} of {len(first)} sequences have equal tokens"


def prompt_logprobs_case(lab: Lab) -> Case:
    def run_case(context: Context) -> str:
        target = context.target
        prompt = _requests(target, 1)[1][0]
        engine = lab.engine(target, "Qwen3")
        params = SamplingParams(2, temperature=0.0, ignore_eos=True, logprobs=3, prompt_logprobs=2)
        engine.add(Generate(1, array("I", prompt), params))
        rows = None
        while engine.has_work():
            for output in engine.step():
                rows = rows or getattr(output, "prompt_logprobs", None)
        assert rows is not None and rows.num_positions == len(prompt) - 1
        judge = lab.judge(target, "Qwen3")
        with torch.inference_mode():
            expected = (
                judge._exact(torch.tensor([prompt], device=target.torch_device))
                .logits[0]
                .log_softmax(-1)
                .cpu()
            )
        away = [abs(rows.values[3 * p] - float(expected[p, prompt[p + 1]])) for p in range(len(prompt) - 1)]
        assert max(away) < 0.3 and sum(away) / len(away) < 0.08, (
            f"worst {max(away):.3f}, mean {sum(away) / len(away):.3f}"
        )
        return f"{len(away)} positions, worst {max(away):.3f}"

    return Case("log probabilities of a prompt", run_case)


def engine_cases(tiny: bool) -> list[Case]:
    lab = Lab()
    families: tuple[str, ...] = FAMILIES[:1] if tiny else FAMILIES
    cases = [parity_case(lab, family, 1, True) for family in families]
    cases += [
        _same_shapes(lab, "graph = eager", {"graphs": True}, {"graphs": False}),
        _same_shapes(lab, "lag 1 = lag 0", {"lag": 1, "graphs": not tiny}, {"lag": 0, "graphs": not tiny}),
        preemption_case(lab),
        solo_case(lab),
        prompt_logprobs_case(lab),
    ]
    if not tiny:
        cases += [parity_case(lab, family, 0, False) for family in families]
    return cases
