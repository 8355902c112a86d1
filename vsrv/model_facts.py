"""What is known of a served model beside its network: names, sampling defaults, ends, fingerprint. From options and the model folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vsrv
from vsrv.api.schema import ModelFacts, SamplingDefaults
from vsrv.config import ServeConfig
from vsrv.errors import ConfigError
from vsrv.option_values import sampling_value
from vsrv.options import SAMPLING
from vsrv.text.template import special_token_text, tokenizer_config

# options by which answers of the same model differ: they enter system_fingerprint
_SHAPE_ANSWERS = (
    "dtype",
    "seed",
    "device",
    "hf-overrides",
    "generation-config",
    "override-generation-config",
    "chat-template",
    "tokenizer",
    "default-chat-template-kwargs",
)
_DEMO_NAME = "demo"


def model_facts(
    config: ServeConfig,
    folder: Path,
    tokenizer: Any,
    vocab_size: int,
    max_model_len: int,
    warn: Callable[[str], None],
) -> ModelFacts:
    """What requests are checked against, from options and the model folder. Raises ConfigError."""
    get = config.get
    generation = generation_config(config, folder)
    eos_text = special_token_text(tokenizer_config(config.text_folder(folder)), "eos_token")
    eos = tokenizer.token_to_id(eos_text) if eos_text else None
    listed = generation.get("eos_token_id", read_json(folder / "config.json").get("eos_token_id"))
    ids = [
        i
        for i in (listed if isinstance(listed, list) else [listed])
        if isinstance(i, int) and 0 <= i < vocab_size
    ]
    if eos is None and ids:
        eos = ids[0]
    model, structured = get("model"), get("structured-outputs-config")
    names = get("served-model-name") or (_DEMO_NAME if model is None else model.rstrip("/"),)
    return ModelFacts(
        served_names=names,
        max_model_len=max_model_len,
        vocab_size=vocab_size,
        max_logprobs=get("max-logprobs"),
        eos_token_id=eos,
        extra_stop_ids=tuple(i for i in ids if i != eos),
        defaults=sampling_defaults(config, generation, warn),
        max_n=get("max-n-sequences"),
        max_prompts=get("max-completion-prompts"),
        template_variables=get("default-chat-template-kwargs"),
        content_format=get("chat-template-content-format"),
        tool_parser=get("tool-call-parser"),
        reasoning_parser=get("reasoning-parser"),
        tool_strict_level=get("tool-strict-level"),
        any_name=get("any-model-name"),
        hide_unused_tools=get("exclude-tools-when-tool-choice-none"),
        compact_json=structured.get("disable_any_whitespace", False),
        closed_objects=structured.get("disable_additional_properties", False),
    )


def generation_config(config: ServeConfig, folder: Path) -> dict[str, Any]:
    """What --generation-config means for a model folder. Raises ConfigError."""
    source = config.get("generation-config")
    if source == "auto":
        return read_json(folder / "generation_config.json")
    if source == "vllm":
        table = read_json(folder / "generation_config.json")
        return {"eos_token_id": table["eos_token_id"]} if "eos_token_id" in table else {}
    path = Path(source) / "generation_config.json"
    if not path.is_file():
        raise ConfigError(
            f"--generation-config {source}: no generation_config.json there; or use auto or vllm"
        )
    return read_json(path)


def sampling_defaults(
    config: ServeConfig, generation: dict[str, Any], warn: Callable[[str], None]
) -> SamplingDefaults:
    """The model's own file is somebody else's: what is wrong in it is told and left out. A chosen folder has to be right.

    `max_new_tokens` of the model's file is only what a chat that does not say gets; given by the operator it is a cap.
    """
    chosen = config.get("generation-config") != "auto"
    values: dict[str, Any] = {}
    for name in SAMPLING:
        try:
            if generation.get(name) is not None:
                values[name] = sampling_value(name, generation[name])
        except ValueError as error:
            if chosen:
                raise ConfigError(f"--generation-config {config.get('generation-config')}: {error}") from None
            warn(f"ignoring a value of generation_config.json: {error}")
    override = config.get("override-generation-config")
    values |= {name: sampling_value(name, value) for name, value in override.items()}
    limit = values.pop("max_new_tokens", None)
    is_cap = chosen or "max_new_tokens" in override
    return SamplingDefaults(**values, max_tokens=limit, max_tokens_cap=limit if is_cap else None)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder; nothing if it is not there. Raises ConfigError."""
    try:
        table = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    return table if isinstance(table, dict) else {}


def fingerprint(config: ServeConfig, folder: Path) -> str | None:
    """Changes when version, model or the settings that change answers do; the same after a restart. See --fingerprint-mode."""
    files = ("config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja")
    facts = [vsrv.__version__, *(str(config.get(name)) for name in _SHAPE_ANSWERS)]
    facts += [(folder / name).read_text() for name in files if (folder / name).is_file()]
    facts += [str(sorted((p.name, p.stat().st_size) for p in folder.glob("*.safetensors")))]
    digest = hashlib.sha256("\0".join(facts).encode()).hexdigest()[:12]
    modes = {
        "full": f"vsrv-{vsrv.__version__}-{digest}",
        "hash": digest,
        "custom": config.get("fingerprint-value"),
    }
    return modes.get(config.get("fingerprint-mode"))
