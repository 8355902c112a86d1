"""Option table → values with their source → frozen configurations. Command line over environment over file over systemd's credentials over default."""

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
from typing import TYPE_CHECKING, Any

from vsrv.errors import ConfigError
from vsrv.keyfile import read_key_file
from vsrv.options import CREDENTIALS, OPTIONS, SAMPLING, Option

if TYPE_CHECKING:
    from vsrv.options_vllm import Foreign

# Kubernetes and Docker set such variables for a service that happens to be called vsrv or vllm.
_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?)$")
_OTHER_VARIABLES = {"VSRV_CACHE_DIR", "VSRV_URL"}  # read elsewhere, no settings of the server
_HUMAN = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@,*A-Z]+")
_LEVELS = {"critical": "error", "fatal": "error", "warn": "warning", "trace": "debug", "notset": "debug"}
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}
MASK = "********"


@dataclass(frozen=True, slots=True)
class Value:
    """One effective setting. source: "default", "credential <name>", "file <path>", "environment <VARIABLE>" or "command line"."""

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
    runner: str = "auto"
    pooler_config: dict[str, Any] = field(default_factory=dict)


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
            runner=get("runner"),
            pooler_config=get("pooler-config"),
        )


def resolve(given: Mapping[str, Any], environ: Mapping[str, str], with_files: bool = True) -> ServeConfig:
    """Combine all sources and check everything. `given` holds command line values, by option name. Raises ConfigError.

    `with_files` off leaves out the files of keys and TLS: a running server that reloads keeps the old ones of each kind that is broken.
    """
    warnings: list[str] = []
    values: Values = {option.name: Value(option.default, "default") for option in OPTIONS}
    environment = _from_environment(environ, warnings)
    path = given.get("config") or (environment["config"].value if "config" in environment else None)
    values |= _from_credentials(environ)
    if path:
        values |= _from_file(Path(path))
    values |= environment
    values |= {
        name: Value(checked(_BY_NAME[name], raw, "--" + name), "command line") for name, raw in given.items()
    }
    _cross_check(values)
    if with_files:
        _check_files(values)
    return ServeConfig(values, tuple(warnings))


_BY_NAME = {option.name: option for option in OPTIONS}


def unknown_option(spelling: str) -> ConfigError:
    """The error for an unknown flag or key: why a known vLLM flag is not there, else the nearest name."""
    foreign = foreign_flag(spelling)
    if foreign is not None:
        return ConfigError(f"{spelling}: {foreign.reason}")
    name = spelling.lstrip("-").replace("_", "-").removeprefix("no-")
    near = difflib.get_close_matches(name, _BY_NAME, 1, 0.7)
    hint = f"; did you mean --{near[0]}?" if near else "; `vsrv serve --help` lists all options"
    return ConfigError(f"unknown option {spelling}{hint}")


def foreign_flag(spelling: str) -> Foreign | None:
    """The vLLM flag that `--name`, `--no-name`, `--name.key`, `-short` or a file's key means, if vsrv does not have it."""
    from vsrv.options_vllm import FOREIGN

    name = spelling.partition(".")[0]
    if name.startswith("-") and not name.startswith("--"):
        return next((row for row in FOREIGN.values() if name in row.shorts), None)
    name = name.lstrip("-").replace("_", "-")
    return FOREIGN.get(name) or FOREIGN.get(name.removeprefix("no-"))


def check_foreign(row: Foreign, raw: Any, where: str) -> None:
    """vLLM's own default asks for nothing. Raises ConfigError with the reason at any other value."""
    if row.any_value or raw is None:
        return
    texts = [str(item) for item in raw] if isinstance(raw, list) else [str(raw)]
    if row.is_switch:
        texts = [text.lower() for text in texts]
    neutral = {row.default} if row.default else {"", "None", "null", "{}", "[]"}
    if not all(text in neutral or _number(text) == _number(row.default) is not None for text in texts):
        raise ConfigError(f"{where} {' '.join(texts)}: {row.reason}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def checked(option: Option, raw: Any, where: str) -> Any:
    """Text or typed value → value of the option's kind, within its bounds. Raises ConfigError naming `where`."""
    try:
        value = _converted(option, raw)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    if str(value) in option.refusals:
        raise ConfigError(f"{where} {raw}: {option.refusals[str(value)]}")
    if option.refused and value != option.default and value != option.fallback:
        raise ConfigError(f"{where} {raw}: {option.refused}")
    if option.choices and value is not None and value not in option.choices:
        raise ConfigError(f"{where} must be one of {', '.join(option.choices)}, not {raw!r}")
    if option.kind in ("int", "float") and value is not None:
        low, high = option.low, option.high
        if (low is not None and value < low) or (high is not None and value > high):
            raise ConfigError(f"{where} must be from {low:.12g} to {high:.12g}, not {raw}")
    return value


def _converted(option: Option, raw: Any) -> Any:
    kind = option.kind
    if kind == "str":
        if not isinstance(raw, str):
            raise ValueError(f"expected text, not {raw!r}")
        if option.name == "log-level":
            return _LEVELS.get(raw.lower(), raw.lower())
        return raw.lower() if option.name == "log-format" else raw
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
        return _keys(raw) if option.name == "api-key" else _strings(raw)
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
    if option.human and (value := _human(text)) is not None:
        return value
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f"expected an integer{' such as 8192, 8k or 8K' if option.human else ''}, not {raw!r}"
        ) from None


def _human(text: str) -> int | None:
    """8192, 8k (1000), 8K (1024), 25.6k → an integer; None if it is none."""
    match = _HUMAN.fullmatch(text)
    if match is None:
        return None
    base = 1024 if match[2].isupper() else 1000
    value = float(match[1]) * base ** _POWERS.get(match[2].lower(), 0)
    return int(value) if value == int(value) else None


def _strings(raw: Any) -> tuple[str, ...]:
    """A list, a JSON list, or comma-separated text; on the command line each word may be any of these."""
    items: list[str] = []
    for word in _listed(raw):
        items += _listed(word) if word.lstrip().startswith("[") else word.split(",")
    return tuple(item.strip() for item in items if item.strip())


def _keys(raw: Any) -> tuple[str, ...]:
    """A key may have any character in it, so that only a list or a JSON list holds several. An empty one is the variable that
    a script forgot to set: that must not open the server."""
    keys: list[str] = []
    for word in _listed(raw):
        keys += _listed(word)
    if not all(key.strip() for key in keys):
        raise ValueError("a key is empty; leave the option out to serve without a key")
    return tuple(keys)


def _listed(raw: Any) -> list[str]:
    """One text, a JSON list or a list, as a list of texts. What is wrong is not shown: it may be a key."""
    if isinstance(raw, str):
        raw = json.loads(raw) if raw.lstrip().startswith("[") else [raw]
    if not isinstance(raw, list | tuple) or not all(isinstance(item, str) for item in raw):
        raise ValueError("expected a list of texts")
    return list(raw)


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


def _from_credentials(environ: Mapping[str, str]) -> Values:
    """Files that systemd's LoadCredential= has put there. A unit makes one optional by an empty line as its default: that is none."""
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    if not folder:
        return {}
    found: Values = {}
    for option, name in CREDENTIALS.items():
        path = Path(folder) / name
        try:
            is_given = bool(path.read_bytes().strip())
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigError(f"credential {name}: {error.strerror}") from None
        if is_given:
            found[option] = Value(str(path), f"credential {name}")
    return found


def _from_file(path: Path) -> Values:
    try:
        text = path.read_text()
        table = _yaml(path, text) if path.suffix in (".yaml", ".yml") else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config {path}: {error}") from None
    values: Values = {}
    for key, raw in table.items():
        name = key.replace("_", "-")
        option, foreign = _BY_NAME.get(name), foreign_flag(key)
        if foreign is not None:
            check_foreign(foreign, raw, f"{path}: {key}")
            continue
        if option is None or name == "config":
            raise ConfigError(f"{path}: {unknown_option(key)}")
        values[name] = Value(checked(option, raw, f"{path}: {key}"), f"file {path}")
    return values


def _yaml(path: Path, text: str) -> dict[str, Any]:
    """vLLM's flat form: a name and a value on each line; a null says nothing. Raises ValueError."""
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError(
            f"--config {path}: YAML needs PyYAML, which is not installed; or write the options as TOML, "
            "`name = value` on each line, in a .toml file"
        ) from None
    try:
        table = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    if table is None:
        return {}
    if not isinstance(table, dict) or not all(isinstance(key, str) for key in table):
        raise ValueError("expected `name: value` on each line")
    return {key: value for key, value in table.items() if value is not None}


def dotted_value(text: str) -> Any:
    """A value of `--option.key value`: JSON where it is JSON, a number with a unit, else text."""
    try:
        return json.loads(text)
    except ValueError:
        return text if (number := _human(text)) is None else number


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def sampling_value(name: str, value: Any) -> int | float:
    """A server's default of the sampling number `name`. Raises ValueError that names it."""
    bound = SAMPLING[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: expected a number, not {value!r}")
    if bound.kind == "int" and value != int(value):
        raise ValueError(f"{name}: expected an integer, not {value!r}")
    if not bound.low <= value <= bound.high or (bound.above_low and value == bound.low):
        least = "above" if bound.above_low else "from"
        raise ValueError(f"{name} must be {least} {bound.low:.10g} to {bound.high:.10g}, not {value!r}")
    return int(value) if bound.kind == "int" else float(value)


def _check_override(table: Mapping[str, Any]) -> None:
    for name, value in table.items():
        if name not in SAMPLING:
            near = difflib.get_close_matches(name, SAMPLING, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(SAMPLING)}"
            raise ConfigError(f"--override-generation-config: nothing is called {name!r}; {hint}")
        try:
            sampling_value(name, value)
        except ValueError as error:
            raise ConfigError(f"--override-generation-config: {error}") from None


def _cross_check(values: Values) -> None:
    def get(name: str) -> Any:
        return values[name].value

    _check_override(get("override-generation-config"))
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
    if get("allow-credentials") and "*" in get("allowed-origins"):
        raise ConfigError(
            "--allow-credentials needs exact --allowed-origins: a browser refuses * with credentials"
        )
    if get("metrics-auth") == "key" and not get("api-key") and not get("api-key-file"):
        raise ConfigError(
            "--metrics-auth key needs --api-key or --api-key-file: there is no key that could be sent"
        )
    for origin in get("allowed-origins"):
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"--allowed-origins {origin}: expected * or scheme://host[:port] without a path, as browsers send it"
            )
    if any(len(key) < 3 for key in get("api-key")):
        raise ConfigError("--api-key: a key needs at least 3 characters")


def _check_files(values: Values) -> None:
    """Said before the port is bound and a model is loaded."""
    for name in ("ssl-certfile", "ssl-keyfile", "ssl-ca-certs", "api-key-file"):
        path = values[name].value
        if path and not Path(path).is_file():
            raise ConfigError(f"--{name} {path}: no such file")
    if values["api-key-file"].value:
        read_key_file(Path(values["api-key-file"].value))


def shown(config: ServeConfig) -> list[str]:
    """Every effective value with its source, as TOML lines; secrets are masked."""
    lines = []
    for option in OPTIONS:
        entry = config.values[option.name]
        value: Any = MASK if option.secret and entry.value else entry.value
        if value is None:
            text = f"# {option.name} is not set"
        else:
            text = f"{option.name} = {toml_text(value)}"
        lines.append(f"{text:<60} # {entry.source}")
    return lines


def differing(config: ServeConfig) -> dict[str, dict[str, Any]]:
    """Settings that are not their defaults: name → {value, default, source}; secrets are masked."""
    return {
        option.name: {
            "value": MASK if option.secret else config.get(option.name),
            "default": option.default,
            "source": config.values[option.name].source,
        }
        for option in OPTIONS
        if config.get(option.name) != option.default
    }


def shown_differences(config: ServeConfig) -> list[str]:
    """`differing` as TOML lines, each with its source and the default that it replaces."""
    lines = []
    for name, entry in differing(config).items():
        default = "not set" if entry["default"] is None else toml_text(entry["default"])
        line = f"{name} = {toml_text(entry['value'])}"
        lines.append(f"{line:<60} # {entry['source']}; default {default}")
    return lines


def _has_null(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(_has_null(item) for item in inner)


def toml_text(value: Any) -> str:
    """A value in TOML's form. There is no null in it, so an object that has one is written as JSON in a text."""
    if isinstance(value, dict):
        if _has_null(value):
            return toml_text(json.dumps(value))
        return "{" + ", ".join(f"{toml_text(key)} = {toml_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_text(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


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
