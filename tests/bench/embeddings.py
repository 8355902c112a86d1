"""Embeddings a second of the MiniLM-L6 shape: vsrv's encoder engine against transformers in the same process.

    OMP_WAIT_POLICY=passive .venv/bin/python tests/bench/embeddings.py [--rounds 5]
    .venv/bin/python tests/bench/embeddings.py --threads 1 --cpu-time       (on a machine that others use meanwhile)

Random weights. transformers gets batches of 32, padded to the longest, in the order of arrival and sorted by length (as
sentence-transformers does); vsrv gets its default steps. Rounds alternate, the best of each is shown, so that a busy machine is as
unfair to one as to the other.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from vsrv import kernels as kernel_package
from vsrv import models
from vsrv.config import EngineConfig
from vsrv.engine.devices import Opened
from vsrv.engine.encoding import EncoderEngine
from vsrv.engine.load_pooling import load_pooling
from vsrv.engine.memory import host_room
from vsrv.engine.placement import Host
from vsrv.messages import Embed, Pooled

BATCH = 32
Ids = list[list[int]]


def save_model(folder: Path) -> transformers.BertModel:
    config = transformers.BertConfig(
        vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    torch.manual_seed(0)
    network = transformers.BertModel(config, add_pooling_layer=False).eval()
    network.save_pretrained(folder)
    return network


def load_engine(folder: Path, threads: int) -> EncoderEngine:
    config = EngineConfig(str(folder), pooler_config={"pooling_type": "MEAN"}, num_threads=threads)
    spec = models.read_any(folder, {}, "auto", config.pooler_config)
    assert isinstance(spec, models.PoolingModelSpec)
    kernels = kernel_package.load("cpu", threads)
    opened = Opened("cpu", kernels, Host(), host_room(threads), None, 0)
    engine, _ = load_pooling(config, spec, opened, lambda frame: None)
    assert isinstance(engine, EncoderEngine)
    return engine


def by_vsrv(engine: EncoderEngine, inputs: Ids) -> torch.Tensor:
    """Submitted shortest first, as the front does."""
    for index in sorted(range(len(inputs)), key=lambda i: len(inputs[i])):
        engine.add(Embed(index, array("I", inputs[index]), len(inputs[index])))
    found: dict[int, array[float]] = {}
    while engine.has_work():
        for output in engine.step():
            assert isinstance(output, Pooled)
            found[output.seq_id] = output.values
    return torch.tensor([found[index] for index in range(len(inputs))])


def by_transformers(network: transformers.BertModel, inputs: Ids, is_sorted: bool) -> torch.Tensor:
    order = (
        sorted(range(len(inputs)), key=lambda i: len(inputs[i])) if is_sorted else list(range(len(inputs)))
    )
    vectors = torch.empty(len(inputs), 384)
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            members = order[start : start + BATCH]
            longest = max(len(inputs[i]) for i in members)
            ids = torch.zeros(len(members), longest, dtype=torch.long)
            mask = torch.zeros(len(members), longest, dtype=torch.long)
            for row, index in enumerate(members):
                ids[row, : len(inputs[index])] = torch.tensor(inputs[index])
                mask[row, : len(inputs[index])] = 1
            hidden = network(ids, attention_mask=mask).last_hidden_state
            sums = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            vectors[members] = torch.nn.functional.normalize(sums)
    return vectors


def workloads() -> dict[str, Ids]:
    chance = random.Random(1)

    def text(length: int) -> list[int]:
        return [chance.randrange(1000, 30000) for _ in range(length)]

    mixed = [round(2 ** chance.uniform(3, 8)) for _ in range(96)]
    return {
        "16 tokens": [text(16) for _ in range(256)],
        "128 tokens": [text(128) for _ in range(48)],
        "8 to 256 tokens": [text(length) for length in mixed],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cpu-time", action="store_true", help="seconds of this process; with --threads 1")
    given = parser.parse_args()
    rounds, threads = given.rounds, given.threads
    unit = "embeddings per second of CPU time" if given.cpu_time else "embeddings/s"
    clock = time.process_time if given.cpu_time else time.perf_counter
    with tempfile.TemporaryDirectory() as name:
        network, engine = save_model(Path(name)), load_engine(Path(name), threads)
        torch.set_num_threads(threads)
        ways: dict[str, Callable[[Ids], torch.Tensor]] = {
            "vsrv": lambda inputs: by_vsrv(engine, inputs),
            "transformers": lambda inputs: by_transformers(network, inputs, False),
            "transformers, sorted": lambda inputs: by_transformers(network, inputs, True),
        }
        print(
            f"{threads} threads, torch {torch.__version__}, transformers {transformers.__version__}; {unit}"
        )
        for title, inputs in workloads().items():
            best = dict.fromkeys(ways, float("inf"))
            vectors = {}
            for _ in range(rounds):
                for way, run in ways.items():
                    began = clock()
                    vectors[way] = run(inputs)
                    best[way] = min(best[way], clock() - began)
            apart = max(float((vectors["vsrv"] - other).abs().max()) for other in vectors.values())
            assert apart < 1e-4, f"the vectors differ by {apart}"
            rates = {way: len(inputs) / seconds for way, seconds in best.items()}
            told = ", ".join(f"{way} {rate:,.0f}" for way, rate in rates.items())
            factor = rates["vsrv"] / max(rate for way, rate in rates.items() if way != "vsrv")
            print(f"{title:<16} {told}: {factor:.2f} x the faster of the two")


if __name__ == "__main__":
    main()
