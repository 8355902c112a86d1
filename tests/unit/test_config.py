"""Every option from every source, in the right order; errors that name the nearest thing; secrets that stay secret."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import vsrv
from vsrv import cli
from vsrv.api.schema import SamplingDefaults
from vsrv.config import resolve
from vsrv.config_text import MASK, shown
from vsrv.errors import ConfigError
from vsrv.model_facts import fingerprint, generation_config, sampling_defaults
from vsrv.option_values import checked, unknown_option
from vsrv.options import OPTIONS, REASONING_PARSERS, TOOL_PARSERS, Option
from vsrv.options_vllm import FOREIGN, Foreign
from vsrv.serve import choose_gpu
from vsrv.text import reasoning, tools

BASE = {"allow-unauthenticated": "true"}
SAMPLES: dict[str, tuple[str, Any]] = {
    "str": ("text", "text"), "int": ("17", 17), "float": ("0.5", 0.5), "bool": ("true", True), "list": ("a,b", ("a", "b")), "json": ('{"a": 1}', {"a": 1}),
}  # fmt: skip
NEEDS_FILES = set(
    "ssl-certfile ssl-keyfile ssl-ca-certs ssl-cert-reqs config allow-credentials api-key-file metrics-auth tokenizer fingerprint-value".split()
)


def sample(option: Option) -> tuple[str, Any]:
    """A legal value that differs from the default: (as text, as value)."""
    if option.choices:
        value = next(choice for choice in option.choices if choice != option.default)
        return value, value
    if option.name == "override-generation-config":
        return '{"top_k": 1}', {"top_k": 1}
    if option.name == "structured-outputs-config":
        return '{"disable_fallback": true}', {"disable_fallback": True}
    if option.kind in ("int", "float"):
        low, high = option.low or 0, option.high or 100
        number = type(low)(min(high, max(low, 17)))
        value = int(number) if option.kind == "int" else float(min(high, max(low, 0.5)))
        return str(value), value
    if option.kind == "bool":
        return str(not option.default).lower(), not option.default
    if option.name == "device-ids":
        return "1", "1"
    if option.name == "api-key":
        return '["key-a", "key,b"]', ("key-a", "key,b")
    if option.name == "allowed-origins":
        return "https://a,http://b:8080", ("https://a", "http://b:8080")
    return SAMPLES[option.kind]


SETTABLE = [o for o in OPTIONS if not o.refused and o.name not in NEEDS_FILES]


@pytest.mark.parametrize("option", SETTABLE, ids=lambda o: o.name)
def test_command_line_over_environment_over_file_over_default(option: Option, tmp_path: Path) -> None:
    text, value = sample(option)
    file = tmp_path / "v.toml"
    raw = list(value) if isinstance(value, tuple) else value
    literal = text.replace(":", " =").replace('"', "") if option.kind == "json" else json.dumps(raw)
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


def test_parsers_are_the_rows_of_their_tables() -> None:
    assert set(TOOL_PARSERS) == {"none", *tools.FORMATS, *tools.ALIASES}
    assert set(REASONING_PARSERS) == {"none", *reasoning.FORMATS, *reasoning.ALIASES}
    assert set(tools.ALIASES.values()) <= set(tools.FORMATS)
    assert set(reasoning.ALIASES.values()) <= set(reasoning.FORMATS)


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
        ({"max-model-len": "1"}, {}, "--max-model-len 1: .* use 2 or more"),
        ({"max-model-len": "0"}, {}, "--max-model-len must be from 2 to 134217728, not 0"),
        ({"port": "abc"}, {}, "--port: expected an integer"),
        ({"dtype": "int3"}, {}, "--dtype must be one of"),
        ({"hf-overrides": "[1]"}, {}, "JSON object"),
        ({"allow-credentials": "true", "allowed-origins": ["*"]}, {}, "exact --allowed-origins"),
        ({"api-key": [""]}, {}, "--api-key: a key is empty"),
        ({"api-key": ["good-key", " "]}, {}, "--api-key: a key is empty"),
        ({"api-key": ["[1]"]}, {}, "--api-key: expected a list of texts"),
        ({"allowed-origins": ["a.example"]}, {}, "--allowed-origins a.example: expected .* scheme://host"),
        ({"allowed-origins": ["https://a/"]}, {}, "https://a/: expected .* without a path"),
        ({"allowed-origins": ["https://*.a"]}, {}, "scheme://host"),
        ({"allowed-origins": ["https://A.example"]}, {}, "scheme://host"),
        ({}, {"VSRV_PROT": "1"}, "VSRV_PROT.*VSRV_PORT"),
        ({}, {"VSRV_PORT": "x"}, "VSRV_PORT: expected an integer"),
        ({"config": "/none.toml"}, {}, "/none.toml"),
        ({"config": "/none.yaml"}, {}, "/none.yaml"),
        ({"load-format": "pt"}, {}, "--load-format pt: pickled weights .* safetensors"),
        ({"load-format": "tensorizer"}, {}, "--load-format tensorizer: only safetensors"),
        ({"load-format": "magic"}, {}, "--load-format must be one of auto, safetensors, dummy"),
        ({"max-logprobs": "-1"}, {}, "--max-logprobs -1: .* at most 1000"),
        ({"max-logprobs": "-2"}, {}, "--max-logprobs must be from 0"),
        ({"log-level": "loud"}, {}, "--log-level must be one of"),
    ],
    ids=str,
)  # fmt: skip
def test_errors_say_what_to_do(given: dict[str, Any], environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        resolve(given, environ)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"temperatur": 1}, "'temperatur'; did you mean temperature"),
        ({"do_sample": True}, "'do_sample'; it has temperature"),
        ({"temperature": 9}, "temperature must be from 0 to 2, not 9"),
        ({"top_p": 0}, "top_p must be above 0 to 1"),
        ({"top_k": 1.5}, "top_k: expected an integer"),
        ({"min_p": "0.1"}, "min_p: expected a number"),
        ({"presence_penalty": True}, "presence_penalty: expected a number"),
        ({"max_new_tokens": 0}, "max_new_tokens must be from 1"),
    ],
    ids=str,
)
def test_an_override_is_checked_at_start(override: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"--override-generation-config: .*{words}"):
        resolve({"override-generation-config": json.dumps(override)}, {})


def defaults_of(tmp_path: Path, table: dict[str, Any], **given: Any) -> tuple[dict[str, Any], list[str]]:
    """Sampling defaults of a model folder with this generation_config.json, and the warnings."""
    (tmp_path / "generation_config.json").write_text(json.dumps(table))
    warnings: list[str] = []
    config = resolve({name.replace("_", "-"): value for name, value in given.items()}, {})
    generation = generation_config(config, tmp_path)
    return asdict(sampling_defaults(config, generation, warnings.append)), warnings


def test_the_models_owngeneration_config(tmp_path: Path) -> None:
    neutral = asdict(SamplingDefaults())
    table = {
        "temperature": 0.6,
        "top_k": 20.0,
        "top_p": 7,
        "min_p": "x",
        "max_new_tokens": 900,
        "do_sample": False,
    }
    got, warnings = defaults_of(tmp_path, table)
    assert got == {**neutral, "temperature": 0.6, "top_k": 20, "max_tokens": 900}
    assert len(warnings) == 2 and "top_p" in warnings[0] and "min_p" in warnings[1]
    assert defaults_of(tmp_path, table, generation_config="vllm") == (neutral, [])
    with pytest.raises(ConfigError, match=f"--generation-config {tmp_path}: top_p"):
        defaults_of(tmp_path, table, generation_config=str(tmp_path))
    got, _ = defaults_of(tmp_path, {"max_new_tokens": 9}, generation_config=str(tmp_path))
    assert (got["max_tokens"], got["max_tokens_cap"]) == (9, 9)
    got, _ = defaults_of(tmp_path, table, override_generation_config='{"max_new_tokens": 5, "top_k": 3.0}')
    assert (got["temperature"], got["top_k"], got["max_tokens"], got["max_tokens_cap"]) == (0.6, 3, 5, 5)


def test_unknown_names() -> None:
    assert "--max-model-len" in str(unknown_option("--max-model-length"))
    assert "LoRA" in str(unknown_option("--enable-lora"))
    assert "load balancer" in str(unknown_option("--pipeline_parallel_size"))
    with pytest.raises(ConfigError, match="did you mean --port"):
        cli.parse(["--prot=1"])
    assert "--help" in str(unknown_option("--hlep"))


def test_a_choice_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ConfigError, match="--tool-call-parser must be one of none, hermes, "):
        resolve(cli.parse(["--tool-call-parser", "foo"]), {})


@pytest.mark.parametrize(
    ("word", "hint"), [("chekc", "did you mean check?"), ("xyz", "there are serve, check,")]
)
def test_a_command_that_is_not_there(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word]) == cli.EXIT_USAGE
    assert hint in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        resolve({"config": str(tmp_path / "no.toml")}, {})
    assert str(error.value) == f"--config {tmp_path / 'no.toml'}: No such file or directory"


def test_json_options_by_dotted_keys() -> None:
    words = [
        "--override-generation-config", '{"temperature": 1, "top_p": 0.5}', "MODEL",
        "--override_generation_config.temperature", "0.3", "--override-generation-config.top_k=20",
        "--hf-overrides.rope_scaling.rope_type", "linear", "--hf-overrides.rope_scaling.factor=2.0",
        "--hf-overrides.max_position_embeddings", "8K", "--hf-overrides.architectures+", "A,B",
        "--default-chat-template-kwargs.enable_thinking", "false",
    ]  # fmt: skip
    config = resolve(cli.parse(words), {})
    assert config.get("model") == "MODEL"
    assert config.get("override-generation-config") == {"temperature": 0.3, "top_p": 0.5, "top_k": 20}
    assert config.get("hf-overrides") == {
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "max_position_embeddings": 8192,
        "architectures": ["A", "B"],
    }
    assert config.get("default-chat-template-kwargs") == {"enable_thinking": False}
    for wrong, match in (
        (["--hf-overrides.a"], "--hf-overrides.a needs a value"),
        (["--hf-overrides.a", "1", "--hf-overrides.a.b", "1"], "--hf-overrides.a.b is given as a value"),
        (["--hf-overrides.a", "1", "--hf-overrides.a+", "1"], "is given as a value"),
        (["--port.a", "1"], "unknown option --port.a"),
        (["--compilation-config.mode", "3"], "compiles nothing"),
        (["-cc.cudagraph_mode=FULL"], "compiles nothing"),
        (["--structured-outputs-config.backend", "xgrammar"], 'backend must be "auto" or "guidance"'),
        (["--structured-outputs-config.disable_any_whitespace", "1"], "must be true or false"),
        (["--structured-outputs-config.reasoning_parser", "x"], "--reasoning-parser"),
        (["--structured-outputs-config.colour", "red"], "nothing is called 'colour'"),
    ):
        with pytest.raises(ConfigError, match=match):
            resolve(cli.parse(wrong), {})


@pytest.mark.parametrize("row", FOREIGN.values(), ids=lambda row: row.name)
def test_other_vllm_flags_are_taken_at_their_default_and_explained_otherwise(row: Foreign) -> None:
    assert row.name not in {flag.removeprefix("--") for o in OPTIONS for flag in (o.name, *o.flags)}
    other = [] if row.is_switch else ["7.25"]
    default = [row.default] if row.default else ["None"]
    for flag in (f"--{row.name}", f"--{row.name.replace('-', '_')}", *row.shorts):
        if not row.is_switch:
            assert cli.parse(["MODEL", flag, *default]) == {"model": "MODEL"}
        if row.any_value:
            assert cli.parse([flag, *other]) == {}
            continue
        with pytest.raises(ConfigError, match=re.escape(row.reason)):
            cli.parse([f"--no-{row.name}" if row.default == "true" else flag, *other])
        if other:
            with pytest.raises(ConfigError, match=re.escape(row.reason)):
                cli.parse(["MODEL", f"{flag}={other[0]}"])
    if row.is_switch:
        assert cli.parse([f"--{row.name}" if row.default == "true" else f"--no-{row.name}"]) == {}


def test_a_vllm_command_line() -> None:
    words = "MODEL -tp 1 -pp 1 -dp=1 -asc None --stream-interval 1 --cpu-offload-gb 0 -O2 --max-model-len 4k --middleware"
    assert cli.parse(words.split()) == {"model": "MODEL", "tensor-parallel-size": "1", "max-model-len": "4k"}
    for wrong, match in (
        ("-O3", "compiles nothing"),
        ("-sc {}x", "speculative"),
        ("--otlp-traces-endpoint http://x", "/metrics"),
        ("--enable-log-outputs", "never logged"),
        ("--speculative_config={}x", "speculative"),
    ):
        with pytest.raises(ConfigError, match=match):
            cli.parse(["MODEL", *wrong.split()])
    assert "did you mean" not in str(unknown_option("--frobnicate-everything"))


@pytest.mark.parametrize(
    ("text", "level"),
    [("CRITICAL", "error"), ("critical", "error"), ("NOTSET", "debug"), ("trace", "debug"), ("WARNING", "warning")],
)  # fmt: skip
def test_levels_of_vllm(text: str, level: str) -> None:
    assert resolve(cli.parse(["--uvicorn-log-level", text]), {}).get("log-level") == level
    assert resolve({}, {"VLLM_LOGGING_LEVEL": text}).get("log-level") == level


def test_flat_yaml_of_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "v.yaml"
    file.write_text(
        "# a comment\nmodel: org/name\nport: 9000\nmax-model-len: 8k\napi_key: [one-key, two-key]\nenforce-eager: true\n"
        "hf-overrides:\n  a: 1\nrevision: null\npipeline-parallel-size: 1\nenable-lora: false\n"
    )
    config = resolve({"config": str(file), "port": "9001"}, {})
    assert config.get("model") == "org/name" and config.get("max-model-len") == 8000
    assert config.get("port") == 9001 and config.get("enforce-eager") is True
    assert config.get("api-key") == ("one-key", "two-key") and config.get("hf-overrides") == {"a": 1}
    assert config.values["model"].source == f"file {file}" and config.values["revision"].source == "default"
    for text, match in (
        ("enable-lora: true", "LoRA"),
        ("prot: 1", "did you mean --port"),
        ("- a", "name: value"),
        ("a: [", "v.yaml: while parsing"),
        ("a: !!python/object:os.system x", "v.yaml: could not determine a constructor"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=match):
            resolve({"config": str(file)}, {})
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigError, match=r"PyYAML, which is not installed.*TOML"):
        resolve({"config": str(file)}, {})


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


def test_words_of_lists_are_split_at_commas_but_keys_are_not() -> None:
    words = [
        "--allowed-origins",
        "https://a,https://b:1",
        "*",
        "--allowed-origins",
        '["http://c"]',
        "--api-key",
        "a,b1",
        "c,d1",
    ]
    config = resolve(cli.parse(words), {})
    assert config.get("allowed-origins") == ("https://a", "https://b:1", "*", "http://c")
    assert config.get("api-key") == ("a,b1", "c,d1")
    for name in ("VSRV_API_KEY", "VLLM_API_KEY"):  # as in vLLM, where the variable is one key
        assert resolve({}, {name: "a,b"}).get("api-key") == ("a,b",)
        assert resolve({}, {name: '["key", "yek"]'}).get("api-key") == ("key", "yek")


def test_an_empty_key_in_a_file_opens_no_server(tmp_path: Path) -> None:
    for text in ('api-key = ""', 'api-key = ["good-key", ""]'):
        (tmp_path / "v.toml").write_text(text)
        with pytest.raises(ConfigError, match="api-key: a key is empty"):
            resolve({"config": str(tmp_path / "v.toml")}, {})


def test_what_config_prints_is_a_file_that_gives_the_same(tmp_path: Path) -> None:
    given = {
        "hf-overrides": {"a b": [1, {"x": True}], "rope": {"factor": 2.5, "type": 'ünï \x7f 🙂 \\ "'}},
        "default-chat-template-kwargs": {"nothing": None, "list": [None], "text": "x, null"},
        "override-generation-config": '{"temperature": 1e-3}',
        "allowed-origins": ["https://a", "https://b"],
        "served-model-name": 'say "hi"',
        "max-model-len": "8K",
        "enforce-eager": True,
    }
    config = resolve(given, {})
    lines = shown(config)
    tomllib.loads("\n".join(lines))
    (tmp_path / "v.toml").write_text("\n".join(line for line in lines if not line.startswith("config")))
    again = resolve({"config": str(tmp_path / "v.toml")}, {})
    for option in OPTIONS:
        if option.name != "config":
            assert again.get(option.name) == config.get(option.name), option.name


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


def test_values_that_ask_for_what_vsrv_does_anyway() -> None:
    words = "MODEL --tokenizer-mode hf -asc 1 --distributed-executor-backend mp --config-format=hf --model-impl vllm"
    assert cli.parse(words.split()) == {"model": "MODEL"}
    for wrong in ("--tokenizer-mode slow", "-asc 2", "--distributed-executor-backend ray"):
        with pytest.raises(ConfigError):
            cli.parse(wrong.split())


@pytest.mark.parametrize(("value", "right"), [("0", True), ("GPU-5a3c", True), ("MIG-5a3c/1/0", True), ("0,1", False), ("", False)])  # fmt: skip
def test_one_gpu_by_number_or_uuid(value: str, right: bool) -> None:
    if not right:
        with pytest.raises(ConfigError, match="one GPU"):
            resolve({"device-ids": value}, {})
        return
    environ: dict[str, str] = {"CUDA_VISIBLE_DEVICES": "7"}
    choose_gpu(resolve({}, {}), environ)
    assert environ == {"CUDA_VISIBLE_DEVICES": "7"}
    choose_gpu(resolve({"device-ids": value}, {}), environ)
    assert environ == {"CUDA_VISIBLE_DEVICES": value}


def test_fingerprints(tmp_path: Path) -> None:
    """vLLM 0.32 has the same four modes; its full form begins with the version."""
    (tmp_path / "config.json").write_text("{}")

    def made(**options: str) -> str | None:
        return fingerprint(
            resolve({name.replace("_", "-"): value for name, value in options.items()}, {}), tmp_path
        )

    digest = made(fingerprint_mode="hash")
    assert digest is not None and re.fullmatch("[0-9a-f]{12}", digest)
    assert made() == f"vsrv-{vsrv.__version__}-{digest}" and made() == made(port="9")
    assert made(fingerprint_mode="hash", dtype="float16") != digest, "settings that change answers count"
    assert made(fingerprint_mode="none") is None
    assert made(fingerprint_mode="custom", fingerprint_value="fp_1") == "fp_1"
    for wrong in ({"fingerprint-mode": "custom"}, {"fingerprint-value": "x"}):
        with pytest.raises(ConfigError, match="belong together"):
            resolve(wrong, {})


def test_another_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        resolve({"tokenizer": str(tmp_path)}, {})
    (tmp_path / "tokenizer.json").write_text("{}")
    config = resolve({"tokenizer": str(tmp_path)}, {})
    assert config.text_folder(Path("model")) == tmp_path
    assert config.engine(Path("model")).tokenizer == str(tmp_path)
    assert resolve({}, {}).text_folder(Path("model")) == Path("model")


def test_what_differs_from_the_defaults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "v.toml"
    file.write_text('max-model-len = "4K"\nport = 8000\n')
    assert cli.main(["config", "--diff", "--config", str(file), "--api-key", "hush-hush"]) == 0
    shown_lines = capsys.readouterr().out.splitlines()
    table = tomllib.loads("\n".join(shown_lines))
    assert table == {"config": str(file), "api-key": MASK, "max-model-len": 4096}, "8000 is the default"
    line = next(line for line in shown_lines if line.startswith("max-model-len"))
    assert line.endswith(f"# file {file}; default not set")
    assert cli.main(["config", "--diff"]) == 0
    assert tomllib.loads(capsys.readouterr().out) == {}
