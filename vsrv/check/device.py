"""The device and what fits on it: driver, compute capability, compiled kernels, memory budget. Opens a GPU, loads no model."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

from vsrv import host, models
from vsrv.check.finding import Finding, failed
from vsrv.config import EngineConfig
from vsrv.engine import devices, gpu
from vsrv.engine.memory import Budget, Room, host_room, plan_encoder_memory, plan_memory
from vsrv.errors import ConfigError
from vsrv.kernels.facts import kernel_facts
from vsrv.models import PoolingModelSpec
from vsrv.models.encoder import EncoderSpec
from vsrv.models.spec import ModelSpec
from vsrv.requirements import FOR_GPUS

_DRIVER = Path("/proc/driver/nvidia/version")
_SMI_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class CheckedDevice:
    """`room` is None where the device cannot be used."""

    findings: tuple[Finding, ...]
    name: str
    room: Room | None = None


def check_device(engine: EngineConfig) -> CheckedDevice:
    """What the engine would compute on."""
    name = devices.choose(engine)
    if name == "cpu":
        return _check_cpu(engine)
    try:
        device = gpu.TorchDevice()
        room = gpu.memory_room(engine.gpu_memory_utilization)
    except ConfigError as error:
        return CheckedDevice((failed("device", error, "--device cpu"), *_held(name)), name)
    text = f"{device.name}, compute capability {device.arch.major}.{device.arch.minor}, driver {driver_version() or 'unknown'}"
    found = [Finding("device", "ok", text)]
    if caution := gpu.caution(device):
        found.append(Finding("device", "warning", caution, "--device cpu"))
    return CheckedDevice(tuple(found), name, room)


def _check_cpu(engine: EngineConfig) -> CheckedDevice:
    threads = host.num_threads(engine.num_threads)
    try:
        is_compiled = devices.are_compiled("cpu")
    except ConfigError as error:
        return CheckedDevice((failed("device", error, "VSRV_CACHE_DIR=FOLDER"),), "cpu", host_room(threads))
    state = "compiled" if is_compiled else "not compiled yet: the first start takes about a minute more"
    found = [Finding("device", "ok", f"cpu, {threads} threads, kernels {state}"), *_unused_gpu(engine)]
    if threads > (cores := host.num_cores()):
        message = (
            f"{threads} threads share the {cores} cores that this process may use, and wait for each other"
        )
        found.append(Finding("device", "warning", message, f"--threads {cores}"))
    return CheckedDevice(tuple(found), "cpu", host_room(threads))


def _held(device: str) -> list[Finding]:
    """Who else holds memory of the GPU: what is said beside "too little is free"."""
    if device != "cuda":
        return []
    return [Finding("device", "warning", f"GPU memory is held by {holder}") for holder in memory_holders()]


def _unused_gpu(engine: EngineConfig) -> list[Finding]:
    """A GPU that --device auto passes by, and why."""
    version = driver_version()
    if engine.device != "auto" or not version:
        return []
    if torch.version.cuda is None:
        message = f"there is an NVIDIA driver ({version}), but torch {torch.__version__} is a CPU build"
        return [Finding("device", "warning", message, f"with a CUDA build of torch, {FOR_GPUS}")]
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        message = f"the GPU has compute capability {major}.{minor}, the kernels need 8.0"
        return [Finding("device", "warning", message, "--device cpu")]
    message = f"there is an NVIDIA driver ({version}), but torch finds no usable GPU: see nvidia-smi and CUDA_VISIBLE_DEVICES"
    return [Finding("device", "warning", message)]


def driver_version() -> str:
    """Version of the NVIDIA kernel driver, as in "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15 …"; empty without one."""
    try:
        first = _DRIVER.read_text().splitlines()[0]
    except (OSError, IndexError):
        return ""
    words = [word for word in first.split() if word[:1].isdigit() and word.count(".") >= 1]
    return words[0] if words else ""


def memory_holders() -> list[str]:
    """ "process 17 (python3, 3052 MiB)" for every process that holds GPU memory, as nvidia-smi tells."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = ["--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            [program, *query], capture_output=True, text=True, timeout=_SMI_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    return [f"process {row[0]} ({Path(row[1]).name}, {row[2]} MiB)" for row in rows if len(row) == 3]


def check_memory(
    engine: EngineConfig, spec: ModelSpec | PoolingModelSpec, device: CheckedDevice
) -> tuple[list[Finding], Budget | None]:
    """The budget that the engine would decide on."""
    if device.room is None:
        return [], None
    facts = kernel_facts(device.name)
    network = spec.network if isinstance(spec, PoolingModelSpec) else spec
    options = models.LoadOptions(engine.dtype, engine.load_format, engine.seed, 0)
    try:
        dtype = options.resolved_dtype(network, facts)
        if isinstance(spec, PoolingModelSpec) and isinstance(network, EncoderSpec):
            budget = plan_encoder_memory(engine, network, spec.max_tokens, dtype, device.room)
            text = f"inputs of at most {budget.max_model_len:,} tokens, {budget.max_num_batched_tokens:,} in a step"
            return [Finding("memory", "ok", text)], budget
        assert isinstance(network, ModelSpec)
        budget = plan_memory(engine, network, facts, dtype, device.room)
    except ConfigError as error:
        return [failed("memory", error, "--max-model-len auto"), *_held(device.name)], None
    return [_cache_found(engine, network, budget, facts.block_size)], budget


def _cache_found(engine: EngineConfig, spec: ModelSpec, budget: Budget, block_size: int) -> Finding:
    asked = engine.max_model_len or spec.max_position_embeddings
    text = f"{budget.num_blocks * block_size:,} tokens fit, sequences of at most {budget.max_model_len:,}"
    if budget.max_model_len < asked:
        message = f"{text}; the model was made for {asked:,}"
        need = -(-asked // block_size) * budget.block_bytes
        return Finding("memory", "warning", message, f"--kv-cache-memory-bytes {need}")
    return Finding("memory", "ok", text)
