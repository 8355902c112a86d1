"""A real tiny model and engines around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import transformers

from vsrv import kernels as kernel_package
from vsrv import models
from vsrv.engine.blocks import BlockPool
from vsrv.engine.engine import Engine
from vsrv.engine.runner import ModelRunner
from vsrv.engine.scheduler import Scheduler, SchedulerLimits
from vsrv.kernels import Kernels

MakeEngine = Callable[..., Engine]


def save_tiny(folder: Path) -> None:
    config = transformers.Qwen3Config(
        vocab_size=150,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    torch.manual_seed(1)
    network = transformers.Qwen3ForCausalLM(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.25) if parameter.dim() > 1 else parameter.uniform_(0.3, 1.2)
    network.to(torch.bfloat16).save_pretrained(folder)


@pytest.fixture(scope="session")
def kernels() -> Iterator[Kernels]:
    loaded = kernel_package.load("cpu", 2)
    yield loaded
    loaded.close()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def model(kernels: Kernels, tiny_folder: Path) -> models.Model:
    spec = models.read_spec(tiny_folder, {})
    return models.load_model(
        tiny_folder, spec, kernels, models.LoadOptions("auto", "auto", 0, 512), lambda fraction: None
    )


@pytest.fixture
def make_engine(kernels: Kernels, model: models.Model) -> MakeEngine:
    def make(
        lag: int = 0,
        blocks: int = 96,
        seqs: int = 8,
        budget: int = 64,
        cache: bool = True,
        policy: str = "fcfs",
        threshold: int = 0,
    ) -> Engine:
        runner = ModelRunner(model, kernels, blocks, seqs)
        pool = BlockPool(blocks, kernels.block_size, cache)
        limits = SchedulerLimits(seqs, budget, min(512, blocks * kernels.block_size), threshold, policy)
        return Engine(runner, Scheduler(limits, pool), kernels.block_size, lag, 0)

    return make
