"""Flags of `vllm serve` that vsrv does not have, so that a vLLM command line gets an exact answer instead of "unknown".

Data only, read when such a flag is met. One word for each flag: `+` in front is a switch, `*` takes several values; `|-x` is a
short form, `=v` vLLM's default (none: not set), `~v` another value that asks for what vsrv does anyway, `!` at the end means that vsrv
does what any value asks for. A flag is accepted at vLLM's default and refused with the reason otherwise. The rows with a meaning here are in
options.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Foreign:
    """One flag. `default` is text, "" where vLLM leaves it unset; a switch is "true" or "false"."""

    name: str
    reason: str
    default: str
    shorts: tuple[str, ...] = ()
    is_switch: bool = False
    is_list: bool = False
    any_value: bool = False
    same: tuple[str, ...] = ()  # further values that are no wish for anything else


_WORDS: tuple[tuple[str, str], ...] = (
    (
        "LoRA adapters are not in this version",
        """
        *lora-modules +enable-lora max-loras=1 max-lora-rank=16 lora-dtype=auto
        +enable-tower-connector-lora max-cpu-loras +fully-sharded-loras *lora-target-modules
        default-mm-loras +specialize-active-lora +enable-mixed-moe-lora-format
        +enable-moe-shared-loras max-lora-cls-labels
        """,
    ),
    (
        "speculative decoding is not in this version",
        """
        max-num-scheduled-tokens speculative-config|-sc spec-method spec-model spec-tokens
        per-request-spec-decode-metrics=none
        """,
    ),
    (
        "mixture-of-experts models are not in this version",
        """
        +enable-expert-parallel|-ep +enable-ep-weight-filter all2all-backend=allgather_reducescatter
        +enable-dbo ubatch-size=0 +enable-elastic-ep elastic-ep-max-dp-size
        dbo-decode-token-threshold=32 dbo-prefill-token-threshold=512 +enable-eplb eplb-config
        expert-placement-strategy=linear
        """,
    ),
    (
        "one device for each model and one process for HTTP in this version; run several servers behind a load balancer",
        """
        +headless api-server-count|-asc~1 +aggregate-engine-logging data-parallel-supervisor-port=9256
        dp-supervisor-probe-interval-s=5.0 dp-supervisor-probe-timeout-s=5.0
        dp-supervisor-probe-failure-threshold=3 +enable-nccl-comm-suspend
        prefill-schedule-interval=1 distributed-executor-backend~uni~mp pipeline-parallel-size|-pp=1
        master-addr=127.0.0.1 master-port=29501 nnodes|-n=1 node-rank|-r=0
        distributed-timeout-seconds cpu-distributed-timeout-seconds +numa-bind *numa-bind-nodes
        *numa-bind-cpus decode-context-parallel-size|-dcp=1 dcp-comm-backend +dcp-q-replicate
        dcp-kv-cache-interleave-size=1 cp-kv-cache-interleave-size
        prefill-context-parallel-size|-pcp=1 data-parallel-size|-dp=1 data-parallel-rank|-dpn
        data-parallel-start-rank|-dpr data-parallel-size-local|-dpl~1 data-parallel-address|-dpa
        data-parallel-rpc-port|-dpp data-parallel-backend|-dpb=mp +data-parallel-hybrid-lb|-dph
        +data-parallel-external-lb|-dpe +data-parallel-multi-port-external-lb|-dpm +enable-hc-sp
        +enable-batch-sharded-sampling dp-sync-interval=16 +disable-nccl-for-dp-synchronization
        max-parallel-loading-workers +ray-workers-use-nsight +disable-custom-all-reduce!
        +enable-fault-tolerance fault-tolerance-config
        """,
    ),
    (
        "vsrv serves text only",
        """
        +trust-request-mm-kwargs allowed-local-media-path *allowed-media-domains
        +disable-chunked-mm-input +enable-shm-tensor-arena ec-manager-config +language-model-only
        limit-mm-per-prompt={} +enable-mm-embeds media-io-kwargs={} mm-processor-kwargs
        mm-processor-cache-gb=4 mm-processor-cache-type=lru mm-hasher-algorithm=blake3
        mm-shm-cache-max-object-size-mb=128 +mm-encoder-only mm-encoder-tp-mode=weights
        mm-encoder-attn-backend mm-encoder-attn-dtype mm-encoder-fp8-scale-path
        mm-encoder-fp8-scale-save-path mm-encoder-fp8-scale-save-margin=1.5 +interleave-mm-strings
        +skip-mm-profiling video-pruning-rate video-pruning-method=evs mm-tensor-ipc=direct_rpc
        mm-processor-device=auto mm-ipc-gpu-memory-gb=0 +mm-device-do-normalize
        """,
    ),
    (
        "vsrv compiles nothing but its own kernels and chooses among them itself",
        """
        gdn-prefill-backend kda-prefill-backend kda-decode-backend +disable-cascade-attn!
        *kv-cache-dtype-skip-layers *cudagraph-capture-sizes max-cudagraph-capture-size
        compilation-config|-cc attention-config|-ac kernel-config optimization-level=O2
        attention-backend ir-op-priority +enable-flashinfer-autotune moe-backend=auto
        linear-backend=auto sparse-indexer-topk-backend=auto
        """,
    ),
    (
        "vsrv has no plug-ins: it runs no code that did not come with it",
        """
        tool-parser-plugin *middleware model-class-overrides={} *logits-processors
        io-processor-plugin scheduler-cls reasoning-parser-plugin worker-cls=auto
        worker-extension-cls additional-config={}
        """,
    ),
    (
        "moving KV blocks to other servers or to host memory is not in this version",
        """
        kv-offloading-size kv-offloading-backend=native kv-transfer-config kv-events-config
        ec-transfer-config
        """,
    ),
    (
        "weights stay whole in the device's memory; use a smaller model or --dtype bfloat16",
        """
        offload-backend=auto cpu-offload-gb=0 *cpu-offload-params offload-group-size=0
        offload-num-in-group=1 offload-prefetch-step=1 *offload-params
        """,
    ),
    (
        "a model is read from its own folder: config.json, tokenizer.json, safetensors; --revision covers all of them",
        """
        tokenizer-mode=auto~hf hf-config-path code-revision tokenizer-revision +skip-tokenizer-init
        config-format=auto~hf model-impl=auto~vllm
        """,
    ),
    (
        "hooks for training and research are not in this version",
        """
        +enable-return-routed-experts +return-sampling-mask +enable-trace-replay
        *sleep-preserve-parameter-names aux-output-config weight-transfer-config
        """,
    ),
    (
        "state-space, hybrid and diffusion models are not in this version",
        """
        +disable-hybrid-kv-cache-manager prefix-cache-retention-interval=0 +kv-sharing-fast-prefill
        +swa-bounded-replay=true mamba-cache-dtype=auto mamba-ssm-cache-dtype=auto mamba-block-size
        prefix-match-unit mamba-cache-mode=none +enable-mamba-shared-prefix-checkpoint
        replayssm-buffer-len=16 +use-replayssm diffusion-config|-dc engram-config
        mamba-backend=triton mamba-ssu-algorithm +enable-mamba-cache-stochastic-rounding
        mamba-cache-philox-rounds=0
        """,
    ),
    (
        "not measured in this version; --help=log and GET /metrics show what is",
        """
        +enable-per-request-metrics profiler-config show-hidden-metrics-for-version
        otlp-traces-endpoint collect-detailed-traces +kv-cache-metrics kv-cache-metrics-sample=0.01
        custom-histogram-buckets +cudagraph-metrics +enable-layerwise-nvtx-tracing
        +enable-mfu-metrics jit-monitor-mode=warn +jit-monitor-verbose
        """,
    ),
    (
        "answers are never logged; see --log-prompts, --log-level, --log-format and --enable-log-requests",
        """
        +enable-log-outputs +enable-log-deltas=true! +log-error-stack
        +enable-logging-iteration-details logging-config log-config-file
        """,
    ),
    (
        "this interface is not in this version; vsrv speaks OpenAI's and Anthropic's over HTTP",
        """
        +grpc tool-server +cohere-is-reasoning-model=true
        cohere-format=cmd4 anthropic-disabled-thinking-effort=auto +tokens-only +enable-scale-out
        grpc-port +enable-flash-late-interaction=true
        """,
    ),
    (
        "quantised weights are not in this version; use a float32, float16 or bfloat16 checkpoint",
        """
        quantization-config +allow-deprecated-quantization
        """,
    ),
    (
        "not tunable here; see --max-num-seqs, --max-num-batched-tokens and --long-prefill-token-threshold",
        """
        renderer-num-workers=1 max-num-active-seqs +long-prefill-token-threshold-adaptive
        +scheduler-reserve-full-isl=true watermark=0.0 performance-mode=balanced
        """,
    ),
    (
        "every step's tokens are sent as they come",
        """
        stream-interval=1
        """,
    ),
    (
        "blocks are found by SHA-256 over their tokens and the tenant; nothing weaker is offered",
        """
        prefix-caching-hash-algo=sha256
        """,
    ),
    (
        "safetensors files are mapped into memory, with nothing to tune",
        """
        safetensors-load-strategy~lazy safetensors-prefetch-num-threads=8
        safetensors-prefetch-block-size=16777216 model-loader-extra-config={}
        *ignore-patterns=original/**/* +use-tqdm-on-load=true pt-load-map-location=cpu
        """,
    ),
    (
        "a sleeping server is not in this version: stop it instead, it is back in seconds",
        """
        +enable-sleep-mode +sleep-mode-offload-cudagraph +enable-cumem-allocator
        """,
    ),
    (
        "prompts are text or token ids",
        """
        +enable-prompt-embeds
        """,
    ),
    (
        "the tags around thinking come from the chat template, or from --reasoning-parser",
        """
        reasoning-config
        """,
    ),
    (
        "sampling noise is float32 and counter-based",
        """
        +use-fp64-gumbel
        """,
    ),
    (
        "an unknown VSRV_ variable is always an error; VLLM_ variables that have no meaning here are left alone",
        """
        +fail-on-environ-validation!
        """,
    ),
    (
        "there are no documentation pages; GET /openapi.json describes every route",
        """
        +enable-offline-docs!
        """,
    ),
    (
        "GET /load always counts",
        """
        +enable-server-load-tracking!
        """,
    ),
    (
        "marking texts is not in this version",
        """
        watermark-config
        """,
    ),
)


def _read(word: str, reason: str) -> Foreign:
    word, *same = word.split("~")
    spelled, _, default = word.lstrip("+*").removesuffix("!").partition("=")
    name, *shorts = spelled.split("|")
    is_switch = word[0] == "+"
    default = default or ("false" if is_switch else "")
    return Foreign(
        name, reason, default, tuple(shorts), is_switch, word[0] == "*", word[-1] == "!", tuple(same)
    )


FOREIGN: dict[str, Foreign] = {
    row.name: row for reason, words in _WORDS for row in (_read(word, reason) for word in words.split())
}
