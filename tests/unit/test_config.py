"""Every option from every source, in the right order; errors that name the nearest thing; secrets that stay secret."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vsrv import cli
from vsrv.config import MASK, checked, resolve, shown, unknown_option
from vsrv.errors import ConfigError
from vsrv.options import OPTIONS, Option

BASE = {"allow-unauthenticated": "true"}
SAMPLES: dict[str, tuple[str, Any]] = {
    "str": ("text", "text"), "int": ("17", 17), "float": ("0.5", 0.5), "bool": ("true", True), "list": ("a,b", ("a", "b")), "json": ('{"a": 1}', {"a": 1}),
}  # fmt: skip
NEEDS_FILES = {"ssl-certfile", "ssl-keyfile", "ssl-ca-certs", "ssl-cert-reqs", "config", "allow-credentials", "api-key-file", "metrics-auth"}  # fmt: skip


def sample(option: Option) -> tuple[str, Any]:
    """A legal value that differs from the default: (as text, as value)."""
    if option.choices:
        value = next(choice for choice in option.choices if choice != option.default)
        return value, value
    if option.kind in ("int", "float"):
        low, high = option.low or 0, option.high or 100
        number = type(low)(min(high, max(low, 17)))
        value = int(number) if option.kind == "int" else float(min(high, max(low, 0.5)))
        return str(value), value
    if option.kind == "bool":
        return str(not option.default).lower(), not option.default
    if option.name == "api-key":
        return "key-a,key-b", ("key-a", "key-b")
    return SAMPLES[option.kind]


SETTABLE = [o for o in OPTIONS if not o.refused and o.name not in NEEDS_FILES]


@pytest.mark.parametrize("option", SETTABLE, ids=lambda o: o.name)
def test_command_line_over_environment_over_file_over_default(option: Option, tmp_path: Path) -> None:
    text, value = sample(option)
    file = tmp_path / "v.toml"
    raw = list(value) if isinstance(value, tuple) else value
    literal = "{ a = 1 }" if option.kind == "json" else json.dumps(raw)
    file.write_text(f"{option.name.replace('-', '_')} = {literal}\n")
    default = resolve(dict(BASE), {})
    assert default.values[option.name].source in ("default", "command line")
    from_file = resolve({**BASE, "config": str(file)}, {}).values[option.name]
    if option.name not in BASE:
        assert (from_file.value, from_file.source) == (value, f"file {file}")
        from_environment = resolve({**BASE, "config": str(file)}, {option.variable: text}).values[option.name]
        assert (from_environment.value, from_environment.source) == (value, f"environment {option.variable}")
        for twin in option.env:
            assert resolve(dict(BASE), {twin: text}).values[option.name].source == f"environment {twin}"
    first = resolve(
        {**BASE, "config": str(file), option.name: text},
        {option.variable: "nonsense" if option.kind == "str" and not option.choices else text},
    )
    assert (first.get(option.name), first.values[option.name].source) == (value, "command line")


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.refused], ids=lambda o: o.name)
def test_refused_options_accept_their_default_and_explain_the_rest(option: Option) -> None:
    other: Any = {"bool": not option.default, "int": 2, "json": {"a": 1}}.get(option.kind, "other")
    if option.choices:
        other = next(c for c in option.choices if c not in (option.default, option.fallback))
    with pytest.raises(ConfigError, match=option.name) as error:
        checked(option, other, f"--{option.name}")
    assert option.refused in str(error.value)
    if option.default is not None:
        assert checked(option, option.default, "x") == option.default


COLUMN_A = """config disable-log-stats shutdown-timeout enable-log-requests chat-template chat-template-content-format default-chat-template-kwargs
enable-auto-tool-choice tool-call-parser enable-prompt-tokens-details sse-keep-alive-interval host port uds uvicorn-log-level
disable-uvicorn-access-log disable-access-log-for-endpoints allow-credentials allowed-origins allowed-methods allowed-headers api-key
ssl-keyfile ssl-certfile ssl-ca-certs enable-ssl-refresh ssl-cert-reqs root-path enable-request-id-headers h11-max-incomplete-event-size
h11-max-header-count runner convert tokenizer dtype seed revision max-model-len quantization enforce-eager max-logprobs logprobs-mode
served-model-name hf-token pooler-config generation-config override-generation-config model load-format download-dir max-num-batched-tokens
max-num-seqs max-num-queued-reqs max-num-queued-tokens scheduling-policy enable-chunked-prefill gpu-memory-utilization
device-memory-utilization kv-cache-memory-bytes kv-cache-dtype enable-prefix-caching reasoning-parser device-ids tensor-parallel-size
structured-outputs-config log-level""".split()


@pytest.mark.parametrize("name", COLUMN_A)
def test_every_usual_vllm_flag_parses(name: str) -> None:
    known = {flag.removeprefix("--") for o in OPTIONS for flag in (o.name, *o.flags)}
    assert name in known
    option = next(o for o in OPTIONS if name == o.name or f"--{name}" in o.flags)
    words = [f"--{name}"] if option.kind == "bool" else [f"--{name.replace('-', '_')}", "x"]
    assert option.name in cli.parse(words)


def test_spellings() -> None:
    given = cli.parse(
        [
            "MODEL",
            "--api-key",
            "a",
            "b",
            "--max_model_len=8k",
            "--no-enable-prefix-caching",
            "-tp",
            "1",
            "-q",
            "awq",
            "--api-key",
            "c",
        ]
    )
    assert given == {
        "model": "MODEL", "api-key": ["a", "b", "c"], "max-model-len": "8k", "enable-prefix-caching": False, "tensor-parallel-size": "1", "quantization": "awq",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="twice"):
        cli.parse(["A", "--model", "B"])
    with pytest.raises(ConfigError, match="one MODEL"):
        cli.parse(["A", "B"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8192", 8192),
        ("8k", 8000),
        ("8K", 8192),
        ("25.6k", 25600),
        ("1M", 1048576),
        ("auto", None),
        ("-1", None),
    ],
)
def test_human_integers(text: str, value: int | None) -> None:
    assert resolve({**BASE, "max-model-len": text}, {}).get("max-model-len") == value


@pytest.mark.parametrize(
    ("given", "environ", "words"),
    [
        ({"host": "0.0.0.0"}, {}, "--api-key.*--allow-unauthenticated"),
        ({"host": "example.org"}, {}, "--allow-unauthenticated"),
        ({"ssl-keyfile": __file__}, {}, "--ssl-certfile"),
        ({"ssl-certfile": "/none", "ssl-keyfile": "/none"}, {}, "/none: no such file"),
        ({"port": "70000"}, {}, "--port must be from 0 to 65535"),
        ({"port": "abc"}, {}, "--port: expected an integer"),
        ({"dtype": "int3"}, {}, "--dtype must be one of"),
        ({"hf-overrides": "[1]"}, {}, "JSON object"),
        ({"allow-credentials": "true", "allowed-origins": ["*"]}, {}, "exact --allowed-origins"),
        ({}, {"VSRV_PROT": "1"}, "VSRV_PROT.*VSRV_PORT"),
        ({}, {"VSRV_PORT": "x"}, "VSRV_PORT: expected an integer"),
        ({"config": "/none.toml"}, {}, "/none.toml"),
        ({"config": "a.yaml"}, {}, "TOML"),
    ],
    ids=str,
)  # fmt: skip
def test_errors_say_what_to_do(given: dict[str, Any], environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        resolve(given, environ)


def test_unknown_names() -> None:
    assert "--max-model-len" in str(unknown_option("--max-model-length"))
    assert "LoRA" in str(unknown_option("--enable-lora"))
    assert "load balancer" in str(unknown_option("--pipeline_parallel_size"))
    with pytest.raises(ConfigError, match="did you mean --port"):
        cli.parse(["--prot=1"])


def test_environment_peculiarities() -> None:
    config = resolve(
        {},
        {
            "VSRV_PORT": "tcp://10.0.0.1:80",
            "VSRV_SERVICE_HOST": "10.0.0.1",
            "VSRV_SEED": "",
            "VLLM_PORT": "1",
            "VLLM_HOST_IP": "x",
        },
    )
    assert config.get("port") == 8000 and config.get("host") == "127.0.0.1" and len(config.warnings) == 2
    assert resolve({}, {"VLLM_API_KEY": "abc", "VSRV_API_KEY": "xyz"}).get("api-key") == ("xyz",)
    assert resolve({}, {"VLLM_API_KEY": "abc"}).get("api-key") == ("abc",)


def test_secrets_are_masked_everywhere() -> None:
    config = resolve({"api-key": ["top-secret"], "hf-token": "hf_secret"}, {})
    text = "\n".join(shown(config)) + repr(config) + repr(config.engine(Path("/m")))
    assert "secret" not in text and MASK in text
    assert "api-key" in text


def test_help_is_quick_to_load_and_complete() -> None:
    heavy = ("torch", "numpy", "asyncio", "orjson", "jinja2", "h11", "ssl")
    code = (
        "import sys; from vsrv import cli; cli.main(['--help']); cli.main(['serve', '--help']); "
        f"print(sorted(name for name in {heavy} if name in sys.modules))"
    )
    shown_help = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert shown_help.endswith("[]\n")
    for option in OPTIONS:
        assert option.refused or f"{option.name}" in shown_help
    for words in (["bench", "--help"], ["config", "--help"], ["serve", "--help=network"], ["version"], []):
        run = subprocess.run(
            [sys.executable, "-m", "vsrv", *words], capture_output=True, text=True, timeout=30
        )
        assert run.returncode == 0 and run.stdout, words
    assert (
        subprocess.run([sys.executable, "-m", "vsrv", "sevre"], capture_output=True, timeout=30).returncode
        == 2
    )
