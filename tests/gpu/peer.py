"""The throughput test by transformers' continuous batching; a JSON line a second, the last one counts. Greedy, which costs it least."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT / "tests" / "cuda"), str(ROOT)]


def main() -> None:
    import torch
    import transformers
    from networks import QWEN3_06B, TINY
    from throughput_bench import lengths

    from vsrv import boot

    boot.die_with_parent()
    tiny, cap = "--tiny" in sys.argv, float(sys.argv[-1])
    values = {
        key: value
        for key, value in (TINY if tiny else QWEN3_06B).items()
        if key not in ("architectures", "torch_dtype")
    }
    config = transformers.Qwen3Config(**values | {"eos_token_id": None})
    device = "cpu" if tiny else "cuda"
    with torch.device(device):
        network = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        ).eval()
    vocabulary, draw = config.vocab_size, random.Random(1)
    generation = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=1024, eos_token_id=vocabulary + 63, pad_token_id=0
    )  # an end that no token is
    manager: Any = network.init_continuous_batching(generation_config=generation)
    manager.start()
    wanted = lengths(tiny)
    manager.add_request([1, 2, 3, 4], request_id="warm", max_new_tokens=4)
    _first(manager, cap)
    began = time.perf_counter()
    for index, (taken, given) in enumerate(wanted):
        prompt = [draw.randrange(vocabulary) for _ in range(taken)]
        manager.add_request(prompt, request_id=f"r{index}", max_new_tokens=given)
    finished, tokens, said = 0, 0, began
    while finished < len(wanted) and time.perf_counter() - began < cap:
        result = manager.get_result(timeout=1)
        if result is not None:
            finished, tokens = finished + 1, tokens + len(result.generated_tokens)
        now = time.perf_counter()
        if now - said > 1 or finished == len(wanted):
            said = now
            running, words = _unfinished(manager), f"{finished} of {len(wanted)} requests finished"
            if finished < len(wanted) and running is None:
                words += "; tokens of unfinished ones are not counted"
            line = {"tokens": tokens + (running or 0), "seconds": now - began, "words": words}
            print(json.dumps(line), flush=True)
    sys.stdout.flush()
    os._exit(0)  # its thread may be in the middle of a batch, and nobody waits for it


def _first(manager: Any, cap: float) -> None:
    """The warm-up request, in which it makes its cache."""
    until = time.perf_counter() + cap
    while time.perf_counter() < until:
        if manager.get_result(timeout=1) is not None:
            return
    raise SystemExit("no result of the first request")


def _unfinished(manager: Any) -> int | None:
    """Tokens of requests that are running; None where this version of transformers keeps them elsewhere."""
    try:
        return sum(
            len(state.generated_tokens)
            for state in list(manager.batch_processor.scheduler.active_requests.values())
        )
    except AttributeError:
        return None


if __name__ == "__main__":
    main()
