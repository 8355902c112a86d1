"""Option table → values with their source → frozen configurations. Command line over environment over file over default."""

from __future__ import annotations

import difflib
import ipaddress
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vsrv.errors import ConfigError
from vsrv.keyfile import read_key_file
from vsrv.options import FOREIGN, OPTIONS, Option

# Kubernetes and Docker set such variables for a service that happens to be called vsrv or vllm.
_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?)$")
_OTHER_VARIABLES = {"VSRV_CACHE_DIR", "VSRV_URL"}  # read elsewhere, no settings of the server
_HUMAN = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)")
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}
MASK = "********"


@dataclass(frozen=True, slots=True)
class Value:
    """One effective setting. source: "default", "file <path>", "environment <VARIABLE>" or "command line"."""

    value: Any
    source: str


Values = dict[str, Value]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Everything that the engine process needs; JSON-able, because it travels in the Hello frame."""

    model: str
    load_format: str = "auto"
    dtype: str = "auto"
    device: str = "auto"
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    block_size: int | None = None
    kv_cache_memory_bytes: int | None = None
    num_gpu_blocks_override: int | None = None
    gpu_memory_utilization: float = 0.92
    enable_prefix_caching: bool = True
    long_prefill_token_threshold: int = 0
    scheduling_policy: str = "fcfs"
    async_scheduling: bool | None = None
    enforce_eager: bool = False
    seed: int = 0
    num_threads: int = 0
    max_logprobs: int = 20
    hf_overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """All settings by name (underscores). Attribute access goes through `get`; `repr` shows no secret."""

    values: Mapping[str, Value] = field(repr=False)
    warnings: tuple[str, ...] = ()

    def get(self, name: str) -> Any:
        return self.values[name].value

    def engine(self, folder: Path) -> EngineConfig:
        """The engine's share, for a model folder that is there."""
        get = self.get
        dtype = {"half": "float16", "float": "float32"}.get(get("dtype"), get("dtype"))
        return EngineConfig(
            model=str(folder),
            load_format=get("load-format"),
            dtype=dtype,
            device=get("device"),
            max_model_len=get("max-model-len"),
            max_num_seqs=get("max-num-seqs"),
            max_num_batched_tokens=get("max-num-batched-tokens"),
            block_size=get("block-size"),
            kv_cache_memory_bytes=get("kv-cache-memory-bytes"),
            num_gpu_blocks_override=get("num-gpu-blocks-override"),
            gpu_memory_utilization=get("gpu-memory-utilization"),
            enable_prefix_caching=get("enable-prefix-caching"),
            long_prefill_token_threshold=get("long-prefill-token-threshold"),
            scheduling_policy=get("scheduling-policy"),
            async_scheduling=get("async-scheduling"),
            enforce_eager=get("enforce-eager"),
            seed=get("seed"),
            num_threads=get("threads"),
            max_logprobs=get("max-logprobs"),
            hf_overrides=get("hf-overrides"),
        )


def resolve(given: Mapping[str, Any], environ: Mapping[str, str]) -> ServeConfig:
    """Combine all sources and check everything. `given` holds command line values, by option name. Raises ConfigError."""
    warnings: list[str] = []
    values: Values = {option.name: Value(option.default, "default") for option in OPTIONS}
    environment = _from_environment(environ, warnings)
    path = given.get("config") or (environment["config"].value if "config" in environment else None)
    if path:
        values |= _from_file(Path(path))
    values |= environment
    values |= {
        name: Value(checked(_BY_NAME[name], raw, "--" + name), "command line") for name, raw in given.items()
    }
    _cross_check(values)
    return ServeConfig(values, tuple(warnings))


_BY_NAME = {option.name: option for option in OPTIONS}


def unknown_option(spelling: str) -> ConfigError:
    """The error for an unknown flag or key: why a known vLLM flag is not there, else the nearest name."""
    name = spelling.lstrip("-").replace("_", "-").removeprefix("no-")
    for reason, names in FOREIGN:
        if name in names:
            return ConfigError(f"{spelling}: {reason}")
    near = difflib.get_close_matches(name, _BY_NAME, 1, 0.5)
    hint = f"; did you mean --{near[0]}?" if near else "; `vsrv serve --help` lists all options"
    return ConfigError(f"unknown option {spelling}{hint}")


def checked(option: Option, raw: Any, where: str) -> Any:
    """Text or typed value → value of the option's kind, within its bounds. Raises ConfigError naming `where`."""
    try:
        value = _converted(option, raw)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    if option.refused and value != option.default and value != option.fallback:
        raise ConfigError(f"{where} {raw}: {option.refused}")
    if option.choices and value is not None and value not in option.choices:
        raise ConfigError(f"{where} must be one of {', '.join(option.choices)}, not {raw!r}")
    if option.kind in ("int", "float") and value is not None:
        low, high = option.low, option.high
        if (low is not None and value < low) or (high is not None and value > high):
            raise ConfigError(f"{where} must be from {low:g} to {high:g}, not {raw}")
    return value


def _converted(option: Option, raw: Any) -> Any:
    kind = option.kind
    if kind == "str":
        if not isinstance(raw, str):
            raise ValueError(f"expected text, not {raw!r}")
        return raw.lower() if option.name in ("log-level", "log-format") else raw
    if kind == "bool":
        text = str(raw).lower()
        if text not in _TRUE | _FALSE:
            raise ValueError(f"expected true or false, not {raw!r}")
        return text in _TRUE
    if kind == "int":
        return _integer(option, raw)
    if kind == "float":
        value = float(raw) if isinstance(raw, str | int | float) and not isinstance(raw, bool) else math.nan
        if not math.isfinite(value):
            raise ValueError(f"expected a number, not {raw!r}")
        return value
    if kind == "list":
        return _strings(raw)
    value = json.loads(raw) if isinstance(raw, str) else raw
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value


def _integer(option: Option, raw: Any) -> int | None:
    if isinstance(raw, bool) or not isinstance(raw, str | int):
        raise ValueError(f"expected an integer, not {raw!r}")
    text = str(raw).strip()
    if option.fallback == -1 and text in ("auto", "-1"):
        return None
    if option.human and (match := _HUMAN.fullmatch(text)):
        unit = match[2]
        base = 1024 if unit.isupper() else 1000
        value = float(match[1]) * base ** _POWERS.get(unit.lower(), 0)
        if value == int(value):
            return int(value)
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f"expected an integer{' such as 8192, 8k or 8K' if option.human else ''}, not {raw!r}"
        ) from None


def _strings(raw: Any) -> tuple[str, ...]:
    """A list, a JSON list, or comma-separated text; on the command line each word may be any of these."""
    if isinstance(raw, str):
        raw = json.loads(raw) if raw.lstrip().startswith("[") else raw.split(",")
    if not isinstance(raw, list | tuple):
        raise ValueError(f"expected a list, not {raw!r}")
    items: list[str] = []
    for item in raw:
        if not isinstance(item, str):
            raise ValueError(f"expected text in the list, not {item!r}")
        if item.lstrip().startswith("["):
            items += _strings(item)
        elif item:
            items.append(item)
    return tuple(items)


def _from_environment(environ: Mapping[str, str], warnings: list[str]) -> Values:
    values: Values = {}
    own = {option.variable for option in OPTIONS} | _OTHER_VARIABLES
    for option in OPTIONS:
        for name in (option.variable, *option.env):
            text = environ.get(name, "")
            if text and not (name.endswith("_PORT") and text.startswith("tcp://")):
                values[option.name] = Value(checked(option, text, name), f"environment {name}")
                break
    for name in environ:
        if not name.startswith("VSRV_") or name in own:
            if name == "VSRV_PORT" and environ[name].startswith("tcp://"):
                warnings.append(f"ignoring {name}: it comes from a container service link")
            continue
        if _SERVICE_LINK.search(name):
            warnings.append(f"ignoring {name}: it comes from a container service link")
        elif environ[name]:
            near = difflib.get_close_matches(name, own, 1, 0.5)
            raise ConfigError(f"unknown variable {name}{f'; did you mean {near[0]}?' if near else ''}")
    return values


def _from_file(path: Path) -> Values:
    if path.suffix in (".yaml", ".yml"):
        raise ConfigError(
            f"--config {path}: write the options as TOML, `name = value` on each line, in a .toml file"
        )
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config {path}: {error}") from None
    values: Values = {}
    for key, raw in table.items():
        name = key.replace("_", "-")
        option = _BY_NAME.get(name)
        if option is None or name == "config":
            raise ConfigError(f"{path}: {unknown_option(key)}")
        values[name] = Value(checked(option, raw, f"{path}: {key}"), f"file {path}")
    return values


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _cross_check(values: Values) -> None:
    def get(name: str) -> Any:
        return values[name].value

    if (
        not get("uds")
        and not is_loopback(get("host"))
        and not get("api-key")
        and not get("api-key-file")
        and not get("allow-unauthenticated")
    ):
        raise ConfigError(
            f"--host {get('host')} can be reached by others and no key is set: give --api-key or --api-key-file, or --allow-unauthenticated "
            "if everybody who reaches this port may use the model"
        )
    if bool(get("ssl-certfile")) != bool(get("ssl-keyfile")):
        missing, there = (
            ("ssl-keyfile", "ssl-certfile") if get("ssl-certfile") else ("ssl-certfile", "ssl-keyfile")
        )
        raise ConfigError(f"--{there} needs --{missing} as well")
    if get("ssl-cert-reqs") and not get("ssl-ca-certs"):
        raise ConfigError(
            "--ssl-cert-reqs needs --ssl-ca-certs: the CA that client certificates are checked against"
        )
    for name in ("ssl-certfile", "ssl-keyfile", "ssl-ca-certs", "api-key-file"):
        if get(name) and not Path(get(name)).is_file():
            raise ConfigError(f"--{name} {get(name)}: no such file")
    if get("allow-credentials") and "*" in get("allowed-origins"):
        raise ConfigError(
            "--allow-credentials needs exact --allowed-origins: a browser refuses * with credentials"
        )
    if get("api-key-file"):
        read_key_file(Path(get("api-key-file")))  # said before the port is bound and a model is loaded
    if get("metrics-auth") == "key" and not get("api-key") and not get("api-key-file"):
        raise ConfigError(
            "--metrics-auth key needs --api-key or --api-key-file: there is no key that could be sent"
        )
    if any(len(key) < 3 for key in get("api-key")):
        raise ConfigError("--api-key: a key needs at least 3 characters")


def shown(config: ServeConfig) -> list[str]:
    """Every effective value with its source, as TOML lines; secrets are masked."""
    lines = []
    for option in OPTIONS:
        entry = config.values[option.name]
        value: Any = MASK if option.secret and entry.value else entry.value
        if value is None:
            text = f"# {option.name} is not set"
        else:
            text = f"{option.name} = {json.dumps(list(value) if isinstance(value, tuple) else value)}"
        lines.append(f"{text:<60} # {entry.source}")
    return lines


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What `vsrv bench` measures. request_rate None sends as fast as `concurrency` allows."""

    url: str
    model: str = ""
    api: str = "completions"
    concurrency: int = 8
    request_rate: float | None = None
    num_requests: int = 32
    prompt_tokens: int = 128
    output_tokens: int = 64
    shared_prefix_tokens: int = 0
    json_path: str | None = None
    api_key: str | None = field(default=None, repr=False)
    seed: int = 0
    ca_file: str | None = None
    temperature: float = 0.0
    ignore_eos: bool = True
    warmup: int = 1
