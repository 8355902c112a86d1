"""THE table: one row for each setting. Command line, environment, TOML, help and `vsrv config` are made from it.

Data only: no imports beyond the standard library's light ones, no handlers, so that `--help` costs nothing.
A row with `refused` is known so that a vLLM command line gets an exact answer: its default is accepted, anything else is refused
with the reason and the alternative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["str", "int", "float", "bool", "list", "json"]


@dataclass(frozen=True, slots=True)
class Option:
    """One setting. `human` integers take k/m/g (1000) and K/M/G (1024). `flags` are further spellings, `env` further variables.

    `refused` is why nothing but the default is taken; `refusals` has the reasons of single values.
    """

    name: str
    kind: Kind
    default: Any
    group: str
    help: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    flags: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    human: bool = False
    secret: bool = False
    refused: str = ""
    fallback: Any = field(default=None)
    refusals: Mapping[str, str] = field(default_factory=dict)

    @property
    def variable(self) -> str:
        return "VSRV_" + self.name.replace("-", "_").upper()


@dataclass(frozen=True, slots=True)
class SamplingBound:
    """Legal values of one sampling number, the same in a request, in generation_config.json and in an override."""

    name: str
    kind: Literal["int", "float"]
    low: float
    high: float
    above_low: bool = False  # `low` itself is not legal


SAMPLING: Mapping[str, SamplingBound] = {
    bound.name: bound
    for bound in (
        SamplingBound("temperature", "float", 0.0, 2.0),
        SamplingBound("top_p", "float", 0.0, 1.0, True),
        SamplingBound("top_k", "int", -1, 2**31 - 1),
        SamplingBound("min_p", "float", 0.0, 1.0),
        SamplingBound("repetition_penalty", "float", 0.01, 100.0),
        SamplingBound("presence_penalty", "float", -2.0, 2.0),
        SamplingBound("frequency_penalty", "float", -2.0, 2.0),
        SamplingBound("max_new_tokens", "int", 1, 1 << 30),
    )
}

TOOL_PARSERS = (  # rows and aliases of text/tools.py
    "none",
    "hermes",
    "llama3_json",
    "pythonic",
    "mistral",
    "qwen3_coder",
    "qwen3_json",
    "granite4",
    "llama4_json",
    "qwen3_xml",
)
REASONING_PARSERS = (  # rows and aliases of text/reasoning.py
    "none",
    "qwen3",
    "deepseek_r1",
    "mistral",
    "granite",
    "deepseek_v3",
    "glm45",
    "holo2",
    "mimo",
    "nemotron_v3",
    "step3p5",
    "minimax_m2",
)

_PICKLED = "pickled weights are programs; convert the checkpoint to safetensors"
_SAFETENSORS = "only safetensors files are read; use auto and a folder that has them"
_LOAD_FORMATS = {
    "hf": "the same as auto here: use auto",
    "mistral": "use auto and the Hugging Face form of the model (config.json, model.safetensors)",
    "pt": _PICKLED,
    "npcache": _PICKLED,
    "gguf": "GGUF files are not read in this version; use a safetensors checkpoint",
    "bitsandbytes": "quantised weights are not in this version; use a float32, float16 or bfloat16 checkpoint",
    **dict.fromkeys(
        (
            "fastsafetensors",
            "instanttensor",
            "runai_streamer",
            "runai_streamer_sharded",
            "sharded_state",
            "tensorizer",
        ),
        _SAFETENSORS,
    ),
}

_KV_DTYPES = dict.fromkeys(
    ("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc", "fp8_ds_mla", "nvfp4", "int8_per_token_head"),
    "the KV cache has the weights' type in this version: change --dtype",
)

OPTIONS: tuple[Option, ...] = (
    # network
    Option(
        "host",
        "str",
        "127.0.0.1",
        "network",
        "address to bind; anything but the loopback interface needs --api-key",
    ),
    Option("port", "int", 8000, "network", "TCP port", low=0, high=65535),
    Option("uds", "str", None, "network", "path of a Unix socket to listen on instead of host and port"),
    Option(
        "root-path",
        "str",
        "",
        "network",
        "path prefix that a reverse proxy leaves in the request path, such as /llm",
    ),
    Option(
        "ssl-certfile",
        "str",
        None,
        "network",
        "TLS certificate chain (PEM); switches HTTPS on, with --ssl-keyfile",
    ),
    Option("ssl-keyfile", "str", None, "network", "TLS private key (PEM)"),
    Option("ssl-keyfile-password", "str", None, "network", "password of the private key", secret=True),
    Option(
        "ssl-ca-certs",
        "str",
        None,
        "network",
        "CA bundle that client certificates are checked against (mutual TLS)",
    ),
    Option(
        "ssl-cert-reqs",
        "int",
        0,
        "network",
        "client certificate: 0 none, 1 optional, 2 required",
        low=0,
        high=2,
    ),
    Option(
        "ssl-ciphers",
        "str",
        None,
        "network",
        "OpenSSL cipher list for TLS 1.2; the default allows AEAD suites only",
    ),
    Option(
        "max-connections",
        "int",
        1024,
        "network",
        "connections at once; further ones are answered 503 and closed",
        low=1,
        high=65536,
    ),
    Option(
        "keep-alive-timeout",
        "float",
        120.0,
        "network",
        "seconds that an idle connection is kept",
        low=1,
        high=3600,
        env=("VLLM_HTTP_TIMEOUT_KEEP_ALIVE",),
    ),
    Option(
        "max-body-bytes",
        "int",
        32 << 20,
        "network",
        "largest request body in bytes, else 413",
        low=1024,
        high=1 << 30,
        human=True,
    ),
    Option(
        "h11-max-incomplete-event-size",
        "int",
        32768,
        "network",
        "largest request head in bytes, else 431",
        low=4096,
        high=4 << 20,
    ),
    Option(
        "h11-max-header-count",
        "int",
        100,
        "network",
        "largest number of request headers, else 431",
        low=8,
        high=256,
    ),
    Option(
        "enable-ssl-refresh",
        "bool",
        True,
        "network",
        "reload the certificate files when they change (SIGHUP does it too); open connections go on",
    ),
    Option(
        "forwarded-allow-ips",
        "list",
        (),
        "network",
        "proxies whose X-Forwarded-For is believed: addresses, networks, unix, or *",
        env=("FORWARDED_ALLOW_IPS",),
    ),
    # security
    Option(
        "api-key",
        "list",
        (),
        "security",
        "keys that clients must send (Bearer or x-api-key); several values and repeats all count; a variable holds one, or a JSON list",
        env=("VLLM_API_KEY",),
        secret=True,
    ),
    Option(
        "api-key-file",
        "str",
        None,
        "security",
        "TOML or JSON file of keys with tenants, scopes, expiry and limits (`vsrv keys`); reloaded when it changes",
    ),
    Option(
        "metrics-auth",
        "str",
        "none",
        "security",
        "who may read /metrics: none is everybody, without the series of tenants on the main port; key is a key with the scope metrics",
        choices=("none", "key"),
    ),
    Option(
        "metrics-port",
        "int",
        None,
        "network",
        "port of its own for /metrics on the same host, by plain HTTP; the main port does not answer /metrics then",
        low=1,
        high=65535,
    ),
    Option(
        "prefix-cache-scope",
        "str",
        "tenant",
        "security",
        "who shares cached prompts; whoever does can find out by timing what others have sent",
        choices=("tenant", "key", "shared"),
    ),
    Option(
        "allow-unauthenticated", "bool", False, "security", "serve a non-loopback address without any key"
    ),
    Option(
        "allowed-origins",
        "list",
        (),
        "security",
        "web origins that browsers may call from (CORS), such as https://app.example.com, comma-separated; * for all",
    ),
    Option("allowed-methods", "list", ("*",), "security", "CORS methods"),
    Option("allowed-headers", "list", ("*",), "security", "CORS request headers"),
    Option("allow-credentials", "bool", False, "security", "CORS credentials; needs exact origins"),
    Option(
        "trust-request-chat-template",
        "bool",
        False,
        "security",
        "templates sent by requests",
        refused="a template is a program; put it into --chat-template",
    ),
    Option(
        "trust-remote-code",
        "bool",
        False,
        "security",
        "run code from the model folder",
        refused="vsrv never runs code that comes with a model; the supported architectures need none",
    ),
    # model
    Option(
        "model",
        "str",
        None,
        "model",
        "model folder or hub id, same as the positional MODEL; without one the embedded demo model is served",
    ),
    Option("served-model-name", "list", (), "model", "names that requests may use; the first is reported"),
    Option(
        "any-model-name",
        "bool",
        False,
        "model",
        "requests may name any model and get this one, for clients whose model name cannot be changed",
        env=("VLLM_SKIP_MODEL_NAME_VALIDATION",),
    ),
    Option("revision", "str", None, "model", "branch, tag or commit on the hub, for all files of the model"),
    Option(
        "download-dir", "str", None, "model", "folder for downloaded models (default: the Hugging Face cache)"
    ),
    Option(
        "hf-token", "str", None, "model", "token for downloads from the hub", env=("HF_TOKEN",), secret=True
    ),
    Option("hf-overrides", "json", {}, "model", "JSON object laid over the model's config.json"),
    Option(
        "load-format",
        "str",
        "auto",
        "model",
        "auto and safetensors read the weights, dummy makes seeded random ones",
        choices=("auto", "safetensors", "dummy"),
        refusals=_LOAD_FORMATS,
    ),
    Option(
        "dtype",
        "str",
        "auto",
        "model",
        "type of weights and KV cache; auto keeps the checkpoint's",
        choices=("auto", "half", "float16", "bfloat16", "float", "float32"),
    ),
    Option(
        "max-model-len",
        "int",
        None,
        "model",
        "longest sequence in tokens, prompt and output; auto (or -1) fits the model and the memory",
        low=2,
        high=1 << 27,
        human=True,
        fallback=-1,
        refusals={"1": "a sequence is a token of prompt and a token of answer at least: use 2 or more"},
    ),
    Option(
        "seed",
        "int",
        0,
        "model",
        "seed of the engine: without request seeds a restarted server repeats itself",
        low=-(2**63),
        high=2**63 - 1,
    ),
    Option(
        "generation-config",
        "str",
        "auto",
        "model",
        "auto takes sampling defaults from the model's generation_config.json, vllm takes none, else a folder",
    ),
    Option(
        "override-generation-config",
        "json",
        {},
        "model",
        'JSON object of sampling defaults, such as {"temperature": 0.3}',
    ),
    Option(
        "max-logprobs",
        "int",
        20,
        "model",
        "most logprobs that a request may ask for",
        low=0,
        high=1000,
        refusals={"-1": "a whole vocabulary for each token is too large an answer; use at most 1000"},
    ),
    Option(
        "logprobs-mode",
        "str",
        "raw_logprobs",
        "model",
        "what logprobs are taken from",
        refused="only raw_logprobs (before bias, penalties and temperature) is built",
    ),
    Option(
        "tokenizer",
        "str",
        None,
        "model",
        "folder with another tokenizer.json, tokenizer_config.json and chat template than the model's",
    ),
    Option(
        "runner",
        "str",
        "auto",
        "model",
        "what the model is to do: generate text, or pooling (embeddings, scores); auto: what its folder is made for",
        choices=("auto", "generate", "pooling"),
        refusals={"draft": "draft models are not in this version"},
    ),
    Option(
        "convert",
        "str",
        "auto",
        "model",
        "adapter for pooling",
        choices=("auto", "none", "embed", "classify"),
        refusals={
            "embed": "use --runner pooling: a decoder then makes embeddings",
            "classify": "decoders that classify are not in this version",
        },
    ),
    Option(
        "pooler-config",
        "json",
        {},
        "model",
        "of a pooling model: pooling_type (CLS, MEAN, LAST, MAX) and normalize, where its folder says otherwise",
    ),
    Option(
        "quantization",
        "str",
        None,
        "model",
        "quantisation method",
        flags=("-q",),
        refused="quantised weights are not in this version; use a float32, float16 or bfloat16 checkpoint",
    ),
    Option(
        "structured-outputs-config",
        "json",
        {},
        "model",
        "JSON object of defaults for structured outputs: disable_any_whitespace (compact JSON), disable_additional_properties",
    ),
    # chat
    Option(
        "chat-template",
        "str",
        None,
        "chat",
        "Jinja template file, or the template itself, instead of the model's",
    ),
    Option(
        "chat-template-content-format",
        "str",
        "auto",
        "chat",
        "how content reaches the template",
        choices=("auto", "string", "openai"),
    ),
    Option(
        "default-chat-template-kwargs",
        "json",
        {},
        "chat",
        'JSON object of template variables, such as {"enable_thinking": false}',
    ),
    Option("response-role", "str", "assistant", "chat", "role of answers"),
    Option("enable-prompt-tokens-details", "bool", True, "chat", "report cached prompt tokens in usage"),
    Option("enable-force-include-usage", "bool", False, "chat", "send usage at the end of every stream"),
    Option(
        "sse-keep-alive-interval",
        "float",
        15.0,
        "chat",
        "seconds of silence in a stream before a comment line; 0 = never",
        low=0,
        high=3600,
    ),
    Option("return-tokens-as-token-ids", "bool", False, "chat", "logprob tokens as token_id:N"),
    Option(
        "enable-auto-tool-choice",
        "bool",
        False,
        "chat",
        "accepted for vLLM's command lines: requests with tools may always let the model choose",
    ),
    Option(
        "tool-call-parser",
        "str",
        "",
        "chat",
        "format of the model's tool calls; empty: what its chat template is made for; none: no tools",
        choices=("", *TOOL_PARSERS),
    ),
    Option(
        "tool-strict-level",
        "str",
        "auto",
        "chat",
        "which calls follow a grammar: auto: those that are required, named or strict; function: the names in all calls; "
        "parameter: the parameters too",
        choices=("auto", "function", "parameter"),
    ),
    Option(
        "exclude-tools-when-tool-choice-none",
        "bool",
        False,
        "chat",
        "do not show a request's tools to the model where its tool_choice is none",
    ),
    Option(
        "reasoning-parser",
        "str",
        "",
        "chat",
        "tags around the model's thinking; empty: what its chat template is made for; none: thinking stays in the answer",
        choices=("", *REASONING_PARSERS),
    ),
    # performance
    Option(
        "device",
        "str",
        "auto",
        "performance",
        "where to compute; auto takes a GPU of compute capability 8.0 or later if torch finds one",
        choices=("auto", "cpu", "cuda"),
    ),
    Option(
        "threads",
        "int",
        0,
        "performance",
        "CPU threads of the engine; 0 = every core that the process may use",
        low=0,
        high=1024,
    ),
    Option(
        "max-num-seqs",
        "int",
        None,
        "performance",
        "sequences computed at once (CPU default 64); more wait in the queue",
        low=1,
        high=4096,
    ),
    Option(
        "max-num-batched-tokens",
        "int",
        None,
        "performance",
        "token budget of one step (CPU default 512): larger prefers throughput, smaller steady streams",
        low=1,
        high=1 << 20,
        human=True,
    ),
    Option(
        "block-size",
        "int",
        None,
        "performance",
        "tokens in one KV block; the CPU kernels have 32",
        low=1,
        high=1024,
    ),
    Option(
        "kv-cache-memory-bytes",
        "int",
        None,
        "performance",
        "size of the KV cache instead of the computed one, such as 4G",
        low=1,
        high=1 << 50,
        human=True,
    ),
    Option(
        "gpu-memory-utilization",
        "float",
        0.92,
        "performance",
        "share of the GPU's memory to use",
        low=0.01,
        high=1,
        flags=("--device-memory-utilization",),
    ),
    Option(
        "num-gpu-blocks-override",
        "int",
        None,
        "performance",
        "exact number of KV blocks",
        low=1,
        high=1 << 30,
    ),
    Option(
        "kv-cache-dtype",
        "str",
        "auto",
        "performance",
        "type of the KV cache; it is the weights' type, and any other is an error",
        choices=("auto", "bfloat16", "float16", "float32"),
        refusals=_KV_DTYPES,
    ),
    Option(
        "disable-sliding-window",
        "bool",
        False,
        "performance",
        "no sequence longer than the model's sliding window, so that every layer sees all of it",
    ),
    Option(
        "enable-prefix-caching",
        "bool",
        True,
        "performance",
        "reuse the KV of prompt beginnings, within one tenant",
    ),
    Option(
        "enable-chunked-prefill",
        "bool",
        True,
        "performance",
        "compute long prompts in pieces beside running streams",
        refused="chunked prefill is how the engine works; use a larger --max-num-batched-tokens to have whole prompts in a step",
    ),
    Option(
        "long-prefill-token-threshold",
        "int",
        0,
        "performance",
        "most tokens of one prompt in one step; 0 = the whole budget",
        low=0,
        high=1 << 20,
    ),
    Option(
        "scheduling-policy",
        "str",
        "fcfs",
        "performance",
        "order of waiting requests",
        choices=("fcfs", "priority"),
    ),
    Option(
        "async-scheduling",
        "bool",
        None,
        "performance",
        "process results of a step while the next one runs (default: on for a GPU, off for the CPU)",
    ),
    Option(
        "enforce-eager",
        "bool",
        False,
        "performance",
        "no CUDA graphs: launch every kernel of every step; nothing to do on the CPU",
    ),
    Option(
        "max-num-queued-reqs",
        "int",
        1024,
        "performance",
        "requests running and waiting, n counted; above it 503 with Retry-After",
        low=1,
        high=1 << 20,
    ),
    Option(
        "max-num-queued-tokens",
        "int",
        4_000_000,
        "performance",
        "prompt tokens of waiting requests; above it 503 with Retry-After",
        low=1,
        high=1 << 40,
        human=True,
    ),
    Option(
        "max-num-queued-bytes",
        "int",
        256 << 20,
        "performance",
        "bytes of request bodies in memory; above it 503 with Retry-After",
        low=1 << 20,
        high=1 << 40,
        human=True,
    ),
    Option(
        "queue-timeout",
        "float",
        300.0,
        "performance",
        "seconds that a request may wait for its turn, then 503 queue_timeout; 0 = no limit",
        low=0,
        high=86400,
    ),
    Option(
        "request-timeout",
        "float",
        0.0,
        "performance",
        "seconds that a request may take in all, then 504 request_timeout; 0 = no limit; a client may ask for less by X-Request-Timeout",
        low=0,
        high=86400,
    ),
    Option(
        "prepare-timeout",
        "float",
        10.0,
        "performance",
        "seconds that chat template, tokenizing and grammar of one request may take, then 400",
        low=0.1,
        high=600,
        env=("VLLM_CHAT_TEMPLATE_RENDER_TIMEOUT",),
    ),
    Option(
        "max-n-sequences",
        "int",
        64,
        "performance",
        "largest n of a request",
        low=1,
        high=16384,
        env=("VLLM_MAX_N_SEQUENCES",),
    ),
    Option(
        "max-completion-prompts",
        "int",
        128,
        "performance",
        "most prompts in one completions request",
        low=1,
        high=4096,
        env=("VLLM_MAX_COMPLETION_PROMPTS",),
    ),
    Option(
        "tensor-parallel-size",
        "int",
        1,
        "performance",
        "GPUs for one model",
        flags=("-tp",),
        low=1,
        high=64,
        refused="one device for each model in this version; run several servers behind a load balancer",
    ),
    Option(
        "device-ids",
        "str",
        None,
        "performance",
        "number or UUID of the GPU to use, as nvidia-smi -L shows it; instead of CUDA_VISIBLE_DEVICES",
    ),
    # operation
    Option(
        "config",
        "str",
        None,
        "operation",
        "TOML file of options (keys as on the command line, - or _); vLLM's flat YAML too where PyYAML is installed",
    ),
    Option(
        "shutdown-timeout",
        "float",
        30.0,
        "operation",
        "seconds that running requests may finish in after SIGTERM",
        low=0,
        high=3600,
    ),
    Option(
        "engine-stall-timeout",
        "float",
        30.0,
        "operation",
        "seconds without a step while work waits before /health says stalled and the engine is restarted",
        low=1,
        high=3600,
    ),
    Option(
        "engine-load-timeout",
        "float",
        900.0,
        "operation",
        "seconds without progress while the model loads before the engine is ended, with its stacks in the log; 0 = wait for ever",
        low=0,
        high=86400,
    ),
    Option(
        "engine-max-restarts",
        "int",
        3,
        "operation",
        "restarts of the engine within ten minutes before the server gives up with exit status 1; 0 = never restart",
        low=0,
        high=1000,
    ),
    Option(
        "log-level",
        "str",
        "info",
        "operation",
        "least important lines that are shown",
        choices=("debug", "info", "warning", "error"),
        flags=("--uvicorn-log-level",),
        env=("VLLM_LOGGING_LEVEL",),
    ),
    Option("log-format", "str", "text", "operation", "form of log lines", choices=("text", "json")),
    Option(
        "enable-log-requests", "bool", True, "operation", "one line for each request, never with prompt text"
    ),
    Option(
        "log-prompts", "bool", False, "operation", "show the beginning of each prompt in its request's line"
    ),
    Option(
        "max-log-len",
        "int",
        200,
        "operation",
        "characters of a prompt that --log-prompts shows",
        low=1,
        high=65536,
    ),
    Option("disable-uvicorn-access-log", "bool", False, "operation", "no line for each request"),
    Option(
        "disable-access-log-for-endpoints",
        "str",
        "/health,/livez,/readyz,/metrics,/ping",
        "operation",
        "comma-separated paths without a log line",
    ),
    Option("disable-log-stats", "bool", False, "operation", "no vllm:* engine metrics and no line of them"),
    Option(
        "log-stats-interval",
        "float",
        10.0,
        "operation",
        "seconds between two lines of throughput, queue and cache while the engine works; 0 = never",
        low=0,
        high=86400,
        env=("VLLM_LOG_STATS_INTERVAL",),
    ),
    Option(
        "enable-tokenizer-info-endpoint",
        "bool",
        False,
        "operation",
        "GET /tokenizer_info tells tokenizer_config.json and the chat template, as lm-evaluation-harness asks for",
    ),
    Option(
        "disable-fastapi-docs",
        "bool",
        False,
        "operation",
        "no /openapi.json",
    ),
    Option(
        "fingerprint-mode",
        "str",
        "full",
        "operation",
        "system_fingerprint of answers: hash of version, model and settings; full has the version in front; custom is --fingerprint-value; none is null",
        choices=("full", "hash", "custom", "none"),
    ),
    Option("fingerprint-value", "str", None, "operation", "system_fingerprint for --fingerprint-mode custom"),
    Option(
        "enable-request-id-headers",
        "bool",
        True,
        "operation",
        "X-Request-Id on every response",
        refused="every response carries X-Request-Id",
    ),
)

EXPIRY_WARN_DAYS = 14  # before a certificate or a key ends: two tries of a weekly renewal are left

# option → name of the file in systemd's $CREDENTIALS_DIRECTORY that is taken when nothing else is given
CREDENTIALS: Mapping[str, str] = {
    "api-key-file": "keys.toml",
    "ssl-certfile": "tls.crt",
    "ssl-keyfile": "tls.key",
    "ssl-ca-certs": "client-ca.crt",
}

GROUPS: tuple[tuple[str, str], ...] = (
    ("network", "where to listen, TLS, limits of the HTTP layer"),
    ("security", "keys and origins"),
    ("model", "which model, how it is read, sampling defaults"),
    ("chat", "templates and streams"),
    ("performance", "concurrency, memory, scheduling"),
    ("operation", "configuration file, logs, shutdown"),
)
