"""Config → an engine that makes vectors: an encoder's, or a decoder's without its sampling. It has made one when it is handed over."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path

from vsrv import models
from vsrv.config import EngineConfig
from vsrv.engine.blocks import BlockPool
from vsrv.engine.devices import Opened
from vsrv.engine.encoding import EncoderEngine, EncoderLimits, Network
from vsrv.engine.memory import Budget, plan_encoder_memory, plan_memory
from vsrv.engine.pooling import PoolingEngine, PoolingRunner
from vsrv.engine.scheduler import Scheduler, SchedulerLimits
from vsrv.errors import ConfigError
from vsrv.messages import Embed, Loading, Pooled, Ready
from vsrv.models import LoadOptions, PoolingModelSpec
from vsrv.models.bert import load_encoder
from vsrv.models.encoder import EncoderSpec
from vsrv.models.pooling import Pooler
from vsrv.models.spec import ModelSpec

_WARMUP_ID = 2**64 - 1  # no front ever sends it
Tell = Callable[[Loading], None]


def load_pooling(
    config: EngineConfig, spec: PoolingModelSpec, device: Opened, tell: Tell
) -> tuple[EncoderEngine | PoolingEngine, Ready]:
    """`spec` is what the model folder says, `device` where it is to run. Raises ConfigError."""
    options = LoadOptions(config.dtype, config.load_format, config.seed, 0)
    dtype = options.resolved_dtype(spec.network, device.kernels)
    engine: EncoderEngine | PoolingEngine
    if isinstance(spec.network, EncoderSpec):
        engine, sizes = _load_encoder(config, spec, spec.network, device, dtype, tell)
    else:
        engine, sizes = _load_decoder(config, spec, spec.network, device, dtype, tell)
    tell(Loading("warmup"))
    warm_up(engine, spec.network.vocab_size)
    pooling = spec.pooling
    ready = Ready(
        vocab_size=spec.network.vocab_size,
        max_model_len=sizes.max_model_len,
        max_num_seqs=sizes.max_num_seqs,
        max_num_batched_tokens=sizes.max_num_batched_tokens,
        block_size=device.kernels.block_size,
        num_blocks=sizes.num_blocks,
        max_logprobs=config.max_logprobs,
        dtype=dtype,
        device=device.name,
        architecture=spec.network.architecture,
        tasks=(spec.task,),
        budget=(*sizes.lines, *([f"CAUTION: {device.caution}"] if device.caution else [])),
        embedding_size=1 if pooling is None else pooling.embedding_size,
        is_matryoshka=pooling is not None and pooling.is_matryoshka,
        matryoshka=() if pooling is None else pooling.matryoshka,
    )
    return engine, ready


def _load_encoder(
    config: EngineConfig, spec: PoolingModelSpec, network: EncoderSpec, device: Opened, dtype: str, tell: Tell
) -> tuple[EncoderEngine, Budget]:
    kernels, folder = device.kernels, Path(config.model)
    plan = plan_encoder_memory(config, network, spec.max_tokens, dtype, device.room)
    seed = config.seed if config.load_format == "dummy" else None
    loaded = load_encoder(folder, network, kernels, dtype, seed, _progress(network.num_parameters, tell))
    pooler = None if spec.pooling is None else Pooler(folder, spec.pooling, kernels.device)
    limits = EncoderLimits(plan.max_num_seqs, plan.max_num_batched_tokens, plan.max_model_len)
    engine = EncoderEngine(Network(loaded, pooler, spec.score_activation), limits, device.placement)
    return engine, plan


def _load_decoder(
    config: EngineConfig, spec: PoolingModelSpec, network: ModelSpec, device: Opened, dtype: str, tell: Tell
) -> tuple[PoolingEngine, Budget]:
    assert spec.pooling is not None
    kernels, folder = device.kernels, Path(config.model)
    plan = plan_memory(config, network, kernels, dtype, device.room)
    options = LoadOptions(config.dtype, config.load_format, config.seed, plan.max_model_len)
    model = models.load_model(folder, network, kernels, options, _progress(network.num_parameters, tell))
    tell(Loading("cache"))
    kernels.prepare(model.kernel_shapes(plan.max_num_seqs, plan.max_num_batched_tokens))
    model.reserve(plan.max_num_batched_tokens, 0)
    limits = SchedulerLimits(
        plan.max_num_seqs,
        plan.max_num_batched_tokens,
        plan.max_model_len,
        config.long_prefill_token_threshold,
        config.scheduling_policy,
    )
    pool = BlockPool(plan.num_blocks, kernels.block_size, config.enable_prefix_caching)
    runner = PoolingRunner(model, kernels, plan.num_blocks, device.placement)
    pooler = Pooler(folder, spec.pooling, kernels.device)
    engine = PoolingEngine(runner, pooler, Scheduler(limits, pool), kernels.block_size)
    return engine, plan


def _progress(num_parameters: int, tell: Tell) -> Callable[[float], None]:
    last = [0.0]

    def progress(fraction: float) -> None:
        if fraction - last[0] >= 0.05 or fraction == 1.0:
            last[0] = fraction
            tell(Loading("weights", fraction, f"{num_parameters / 1e6:,.0f} million parameters"))

    return progress


def warm_up(engine: EncoderEngine | PoolingEngine, vocab_size: int) -> None:
    """Make one vector through the whole path. Raises ConfigError if that fails."""
    ids = array("I", [index % vocab_size for index in range(2)])
    engine.add(Embed(_WARMUP_ID, ids, len(ids)))
    outputs = []
    while engine.has_work():
        outputs += engine.step()
    if not outputs or not isinstance(outputs[-1], Pooled):
        raise ConfigError(f"the model could not make a vector: {outputs[-1] if outputs else 'no output'}")
    engine.reset_statistics()
