"""Option table → values with their source → frozen configurations. Command line over environment over file over systemd's credentials over default.

Loaded at every start, `--help` included: what only some starts need is imported by the function that needs it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vsrv.errors import ConfigError
from vsrv.option_values import (
    BY_NAME,
    check_foreign,
    checked,
    foreign_flag,
    nearest,
    sampling_value,
    unknown_option,
)
from vsrv.options import CREDENTIALS, OPTIONS, SAMPLING

# Kubernetes and Docker set such variables for a service that happens to be called vsrv or vllm.
_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?)$")
_OTHER_VARIABLES = {"VSRV_CACHE_DIR", "VSRV_URL"}  # read elsewhere, no settings of the server
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@,*A-Z]+")
_DEVICE_ID = re.compile(r"\d{1,3}|(?:GPU|MIG)-[0-9A-Za-z/-]{1,80}")


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
    kv_cache_dtype: str = "auto"
    disable_sliding_window: bool = False
    tokenizer: str = ""  # folder of the tokenizer; empty: the model's
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

    def text_folder(self, folder: Path) -> Path:
        """Where tokenizer and chat template are: in the model's `folder`, or in --tokenizer."""
        return Path(self.get("tokenizer") or folder)

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
            kv_cache_dtype=get("kv-cache-dtype"),
            disable_sliding_window=get("disable-sliding-window"),
            tokenizer=str(self.text_folder(folder)),
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
    config = combine(given, environ)
    for conflict in conflicts(config):
        raise conflict
    if with_files:
        _check_files(config.values)
    return config


def combine(given: Mapping[str, Any], environ: Mapping[str, str]) -> ServeConfig:
    """All sources together, each value checked by itself. Raises ConfigError; see `conflicts` for what does not fit together."""
    warnings: list[str] = []
    values: Values = {option.name: Value(option.default, "default") for option in OPTIONS}
    environment = _from_environment(environ, warnings)
    path = given.get("config") or (environment["config"].value if "config" in environment else None)
    values |= _from_credentials(environ)
    if path:
        values |= _from_file(Path(path))
    values |= environment
    values |= {
        name: Value(checked(BY_NAME[name], raw, "--" + name), "command line") for name, raw in given.items()
    }
    return ServeConfig(values, tuple(warnings))


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
            near = nearest(name, own, 0.5)
            raise ConfigError(f"unknown variable {name}{f'; did you mean {near}?' if near else ''}")
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
    import tomllib

    try:
        text = path.read_text()
        table = _yaml(path, text) if path.suffix in (".yaml", ".yml") else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"--config {path}: {error}") from None
    values: Values = {}
    for key, raw in table.items():
        name = key.replace("_", "-")
        option, foreign = BY_NAME.get(name), foreign_flag(key)
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


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    import ipaddress

    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _override_conflicts(table: Mapping[str, Any]) -> Iterator[ConfigError]:
    for name, value in table.items():
        if name not in SAMPLING:
            near = nearest(name, SAMPLING, 0.5)
            hint = f"did you mean {near}?" if near else f"it has {', '.join(SAMPLING)}"
            yield ConfigError(f"--override-generation-config: nothing is called {name!r}; {hint}")
            continue
        try:
            sampling_value(name, value)
        except ValueError as error:
            yield ConfigError(f"--override-generation-config: {error}")


# of vLLM's object: what each name may be here
_STRUCTURED: Mapping[str, tuple[Any, ...]] = {
    "backend": ("auto", "guidance"),
    "disable_fallback": (True, False),
    "disable_any_whitespace": (True, False),
    "disable_additional_properties": (True, False),
    "enable_in_reasoning": (False,),
    "reasoning_parser": ("",),
}


def _structured_conflicts(table: Mapping[str, Any]) -> Iterator[ConfigError]:
    for name, value in table.items():
        legal = _STRUCTURED.get(name)
        if legal is None:
            yield ConfigError(
                f"--structured-outputs-config: nothing is called {name!r}; it has {', '.join(_STRUCTURED)}"
            )
        elif value not in legal or isinstance(value, bool) != isinstance(legal[0], bool):
            hint = "; use --reasoning-parser" if name == "reasoning_parser" else ""
            words = " or ".join(json.dumps(item) for item in legal)
            yield ConfigError(f"--structured-outputs-config: {name} must be {words}, not {value!r}{hint}")


def conflicts(config: ServeConfig) -> Iterator[ConfigError]:
    """Settings that do not fit together, or that say nothing sensible, each as the error that a start would end with."""
    for check in (_access_conflicts, _tls_conflicts, _web_conflicts, _other_conflicts):
        yield from check(config.get)


def _access_conflicts(get: Callable[[str], Any]) -> Iterator[ConfigError]:
    has_keys = bool(get("api-key") or get("api-key-file"))
    is_open = not get("uds") and not is_loopback(get("host"))
    if is_open and not has_keys and not get("allow-unauthenticated"):
        yield ConfigError(
            f"--host {get('host')} can be reached by others and no key is set: give --api-key or --api-key-file, or --allow-unauthenticated "
            "if everybody who reaches this port may use the model",
            "--api-key-file FILE",
        )
    if get("metrics-auth") == "key" and not has_keys:
        yield ConfigError(
            "--metrics-auth key needs --api-key or --api-key-file: there is no key that could be sent",
            "--api-key-file FILE",
        )
    if any(len(key) < 3 for key in get("api-key")):
        yield ConfigError("--api-key: a key needs at least 3 characters")


def _tls_conflicts(get: Callable[[str], Any]) -> Iterator[ConfigError]:
    if bool(get("ssl-certfile")) != bool(get("ssl-keyfile")):
        pair = ("ssl-keyfile", "ssl-certfile")
        missing, there = pair if get("ssl-certfile") else pair[::-1]
        yield ConfigError(f"--{there} needs --{missing} as well", f"--{missing} FILE")
    if get("ssl-cert-reqs") and not get("ssl-ca-certs"):
        yield ConfigError(
            "--ssl-cert-reqs needs --ssl-ca-certs: the CA that client certificates are checked against",
            "--ssl-ca-certs FILE",
        )


def _web_conflicts(get: Callable[[str], Any]) -> Iterator[ConfigError]:
    if get("allow-credentials") and "*" in get("allowed-origins"):
        yield ConfigError(
            "--allow-credentials needs exact --allowed-origins: a browser refuses * with credentials"
        )
    for origin in get("allowed-origins"):
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            yield ConfigError(
                f"--allowed-origins {origin}: expected * or scheme://host[:port] without a path, as browsers send it"
            )


def _other_conflicts(get: Callable[[str], Any]) -> Iterator[ConfigError]:
    yield from _override_conflicts(get("override-generation-config"))
    yield from _structured_conflicts(get("structured-outputs-config"))
    if (get("fingerprint-mode") == "custom") != (get("fingerprint-value") is not None):
        yield ConfigError("--fingerprint-mode custom and --fingerprint-value belong together")
    if get("device-ids") is not None and not _DEVICE_ID.fullmatch(get("device-ids")):
        yield ConfigError(
            f"--device-ids {get('device-ids')}: expected the number or UUID of one GPU, such as 0; one device for each model: run several servers"
        )
    if get("tokenizer") is not None and not Path(get("tokenizer"), "tokenizer.json").is_file():
        yield ConfigError(f"--tokenizer {get('tokenizer')}: expected a folder with a tokenizer.json")


def _check_files(values: Mapping[str, Value]) -> None:
    """Said before the port is bound and a model is loaded."""
    for name in ("ssl-certfile", "ssl-keyfile", "ssl-ca-certs"):
        path = values[name].value
        if path and not Path(path).is_file():
            raise ConfigError(f"--{name} {path}: no such file")
    if values["api-key-file"].value:
        from vsrv.keyfile import read_key_file

        read_key_file(Path(values["api-key-file"].value))


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
