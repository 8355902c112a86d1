"""The model folder: config.json, tokenizer, chat template, sampling defaults, weights by their headers. Loads no weight."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vsrv import hub, models
from vsrv.api.schema import ModelFacts
from vsrv.check.finding import Finding, failed
from vsrv.config import EngineConfig, ServeConfig
from vsrv.errors import ConfigError
from vsrv.model_facts import model_facts
from vsrv.models import PoolingModelSpec
from vsrv.models.encoder import EncoderSpec
from vsrv.models.spec import ModelSpec
from vsrv.models.verify import verify_weights
from vsrv.prepare_worker import build_preparer
from vsrv.text.template import load_template_source
from vsrv.text.tokenizer import Tokenizer

_TASKS = {"embed": "embeddings", "score": "scores"}


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """What the memory plan needs; `spec` is None where the model is not here or not understood."""

    findings: tuple[Finding, ...]
    folder: Path | None = None
    spec: ModelSpec | PoolingModelSpec | None = None


def check_model(config: ServeConfig) -> CheckedModel:
    """Everything that `serve` would read of the model, but the weights themselves."""
    try:
        folder = _folder(config)
    except ConfigError as error:
        return CheckedModel((failed("model", error, "vsrv serve MODEL"),))
    if folder is None:
        message = f"{config.get('model')} is not in the cache: `vsrv serve` downloads it first; nothing else of it can be said"
        return CheckedModel((Finding("model", "warning", message),))
    engine = config.engine(folder)
    try:
        spec = models.read_any(folder, engine.hf_overrides, engine.runner, engine.pooler_config)
    except ConfigError as error:
        return CheckedModel((failed("model", error),), folder)
    network = spec.network if isinstance(spec, PoolingModelSpec) else spec
    size = f"{network.architecture}, {network.num_parameters / 1e6:,.1f} million parameters"
    task = _TASKS[spec.task] if isinstance(spec, PoolingModelSpec) else "text"
    found = [Finding("model", "ok", f"{folder}: {size}, makes {task}")]
    found += [*_weights(engine, folder, network), *_texts(config, folder, spec)]
    return CheckedModel(tuple(found), folder, spec)


def _folder(config: ServeConfig) -> Path | None:
    model = config.get("model")
    if model is None:
        from vsrv import demo

        return demo.model_path()
    return hub.find(model, hub.options_of(config))


def _weights(engine: EngineConfig, folder: Path, spec: ModelSpec | EncoderSpec) -> list[Finding]:
    if engine.load_format == "dummy":
        return [Finding("weights", "ok", "random ones (--load-format dummy)")]
    try:
        verified = verify_weights(folder, spec)
    except ConfigError as error:
        return [failed("weights", error)]
    if verified.problems:
        return [Finding("weights", "error", problem) for problem in verified.problems]
    return [
        Finding(
            "weights",
            "ok",
            f"{verified.num_tensors} tensors, {verified.num_bytes / 2**20:,.1f} MiB of safetensors",
        )
    ]


def _texts(config: ServeConfig, folder: Path, spec: ModelSpec | PoolingModelSpec) -> list[Finding]:
    """Tokenizer, and for a model that generates template and sampling defaults."""
    network = spec.network if isinstance(spec, PoolingModelSpec) else spec
    try:
        tokenizer = Tokenizer(config.text_folder(folder))
    except ConfigError as error:
        return [failed("tokenizer", error)]
    found = [Finding("tokenizer", "ok", f"{tokenizer.vocab_size:,} tokens")]
    if tokenizer.vocab_size > network.vocab_size:
        message = f"{tokenizer.vocab_size:,} tokens, the model has {network.vocab_size:,}: this is the tokenizer of another model"
        found = [Finding("tokenizer", "warning", message)]
    if isinstance(spec, PoolingModelSpec):
        return found
    return [*found, *_requests(config, folder, tokenizer, spec)]


def _requests(config: ServeConfig, folder: Path, tokenizer: Tokenizer, spec: ModelSpec) -> list[Finding]:
    """What requests are checked against and prepared with: names, sampling defaults, chat template, formats of tool calls."""
    warnings: list[str] = []
    length = config.get("max-model-len") or spec.max_position_embeddings
    try:
        facts = model_facts(config, folder, tokenizer, spec.vocab_size, length, warnings.append)
    except ConfigError as error:
        return [failed("sampling", error, "--generation-config vllm")]
    found = [Finding("sampling", "warning", warning) for warning in warnings]
    found += [Finding("names", "ok", f"served as {', '.join(facts.served_names)}")]
    return [*found, _template(config, config.text_folder(folder), facts, tokenizer)]


def _template(config: ServeConfig, text_folder: Path, facts: ModelFacts, tokenizer: Tokenizer) -> Finding:
    try:
        source = load_template_source(text_folder, config.get("chat-template"))
        preparer = build_preparer(text_folder, config.get("chat-template"), facts, tokenizer)
    except ConfigError as error:
        return failed("template", error, "--chat-template FILE")
    if source is None:
        message = "none: /v1/chat/completions will refuse every request"
        return Finding("template", "warning", message, "--chat-template FILE")
    return Finding("template", "ok", f"{len(source):,} characters; {preparer.described}")
