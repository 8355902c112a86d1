"""What the demo model knows about running the server: restarts of the engine, log lines, statistics, small endpoints."""

from __future__ import annotations

from vsrv.demo.topic import option

OPERATION = (
    option(
        "engine-stall-timeout",
        "sets after how many seconds without a step a stuck engine is restarted (default 30).",
        "--engine-stall-timeout 60",
        goals="""detect a hanging engine; restart the engine when it hangs; set the watchdog time; notice a stuck engine sooner;
        give slow steps more time before a restart; set how long the engine may stand still; recover from a frozen gpu""",
        nouns="""the stall timeout; the watchdog; the hang detection; the time before a stuck engine is restarted; a stalled
        engine; the engine watchdog; a frozen engine""",
        problems="""the engine hangs; /health says stalled; the engine makes no progress; generation is stuck and nothing
        happens; the engine is restarted although it is only slow; the gpu froze in the middle of a step""",
        asks="""what happens when the engine hangs; is there a watchdog; when is a stuck engine restarted; how does it notice a
        hang; why does health say stalled""",
        keys="stall; stalled; watchdog; hang; stuck engine; frozen; stall timeout; engine hangs; no progress",
    ),
    option(
        "engine-load-timeout",
        "ends a load that makes no progress for so many seconds (default 900; 0: wait for ever).",
        "MODEL --engine-load-timeout 1800",
        goals="""give the model more time to load; limit the loading time; wait longer while the model loads; not give up on a
        slow disk; abort a load that hangs; set the timeout for loading the weights""",
        nouns="""the load timeout; the loading time limit; the time to load the model; the startup timeout; the timeout of
        loading""",
        problems="""loading from the network drive takes very long and is ended; the load is aborted after fifteen minutes; the
        model load hangs for ever; startup times out""",
        asks="how long may loading take; why is loading aborted; what if the model load hangs; is there a timeout for the start",
        keys="load timeout; loading time; startup timeout; slow load; load hangs; loading timeout",
    ),
    option(
        "engine-max-restarts",
        "limits restarts of the engine within ten minutes (default 3; 0: never restart).",
        "--engine-max-restarts 10",
        goals="""limit how often the engine is restarted; never restart the engine; exit when the engine crashes; restart a
        crashed engine more often; let systemd do the restarting; stop the server after the first engine crash""",
        nouns="""the number of engine restarts; automatic restarts; the restart limit; restarts after a crash; crash recovery;
        how often a crashed engine comes back""",
        problems="""the engine crashes again and again; the server gives up after three restarts; the engine died and the server
        ended; I want the process to end when the engine crashes; the engine process was killed by the oom killer""",
        asks="""what happens when the engine crashes; is a crashed engine restarted; how often is the engine restarted; can
        restarts be turned off; does it recover from a crash""",
        keys="engine restarts; max restarts; crash; crashed engine; restart limit; crash recovery; engine died; restarts",
    ),
    option(
        "log-prompts",
        "shows the beginning of each prompt in its request's log line (off by default).",
        "--log-prompts",
        goals="""write prompts to the log; see what users ask; log the prompt text; show the text of requests in the log; record
        the prompts; debug what my client sends as prompt; keep prompts in the log""",
        nouns="""prompts in the log; prompt logging; the text of prompts in the log; the logged prompt text; a log of what users
        ask""",
        problems="""I cannot see the prompt in the log; the log shows requests without their text; I must know what my client
        really sends""",
        asks="""can prompts be logged; how do I see the prompt text in the log; how do I log what users type; where can I read the
        prompts""",
        keys="log prompts; prompt logging; prompts in log; log text; prompt text; see prompts",
    ),
    option(
        "max-log-len",
        "sets how many characters of a prompt --log-prompts shows (default 200).",
        "--log-prompts --max-log-len 1000",
        goals="""log more of each prompt; shorten the logged prompts; show {n} characters of a prompt in the log; log whole
        prompts; cut prompts in the log""",
        nouns="the length of logged prompts; the characters of a logged prompt; the logged prompt length; max log length",
        problems="logged prompts are cut after 200 characters; the prompt in the log is too short; long prompts fill the log",
        asks="how much of a prompt is logged; why is the prompt in the log cut; can the log show the whole prompt",
        keys="max log len; log length; logged prompt length; log characters; cut log",
    ),
    option(
        "disable-uvicorn-access-log",
        "writes no line for each request, like --no-enable-log-requests; it is vLLM's name for that.",
        "--disable-uvicorn-access-log",
        goals="turn off uvicorn's access log; disable the uvicorn log; silence the uvicorn access lines",
        nouns="the uvicorn access log; uvicorn logging; uvicorn's request lines; the uvicorn log",
        problems="in vllm I switched the uvicorn access log off; uvicorn lines fill my log",
        asks="is there uvicorn's access log; how do I turn off the uvicorn access log",
        keys="uvicorn; uvicorn access log; disable uvicorn; uvicorn log",
    ),
    option(
        "disable-access-log-for-endpoints",
        "lists paths whose requests get no log line (by default the health probes and /metrics).",
        "--disable-access-log-for-endpoints /health,/v1/models",
        goals="""hide health checks from the log; not log requests to /v1/models; leave some paths out of the access log; log the
        probes too; exclude an endpoint from the log; silence the log for one path; see probes in the access log""",
        nouns="""paths without a log line; the endpoints left out of the access log; health checks in the log; excluded paths;
        log exclusions; probe lines in the log""",
        problems="""polling of /v1/models floods the log; I do not see the health checks in the log; one path is called every
        second and fills the log; kubernetes probes should be logged too""",
        asks="""are health checks logged; how do I keep one path out of the log; which paths are not logged; can I exclude
        endpoints from the access log""",
        keys="log exclude; exclude path; access log endpoints; health checks log; log paths; endpoints without log",
    ),
    option(
        "disable-log-stats",
        "turns the vllm:* engine metrics and the statistics line in the log off.",
        "--disable-log-stats",
        goals="""turn off statistics; disable engine metrics; stop logging throughput; remove the stats from the log; switch
        off the vllm metrics; have no statistics at all""",
        nouns="log stats; engine statistics; the engine metrics; the vllm metrics; stats collection",
        problems="I need no statistics; the engine metrics cost time; stats are of no use to me",
        asks="can statistics be turned off; how do I disable the vllm metrics; how to have no stats",
        keys="log stats; disable stats; no statistics; stats off; disable metrics; engine stats",
    ),
    option(
        "log-stats-interval",
        "sets the seconds between two lines of throughput, queue and cache in the log (default 10; 0: never).",
        "--log-stats-interval 60",
        goals="""log the throughput less often; change how often statistics are logged; see tokens per second in the log more
        often; print statistics every {n} seconds; stop the periodic throughput line; log the queue length regularly""",
        nouns="""the stats interval; the throughput line; the interval of the statistics line; how often throughput is logged;
        the periodic log line; the seconds between statistics""",
        problems="""every ten seconds a line of throughput appears; the statistics line comes too often; I want throughput in
        the log every minute""",
        asks="how often is throughput logged; can I see tokens per second in the log; how do I get the statistics line less often",
        keys="stats interval; log interval; throughput line; statistics line; log stats interval; periodic log",
    ),
    option(
        "enable-tokenizer-info-endpoint",
        "adds GET /tokenizer_info, which tells tokenizer_config.json and the chat template.",
        "MODEL --enable-tokenizer-info-endpoint",
        goals="""read the tokenizer's configuration over http; get the chat template from the server; use lm-evaluation-harness
        with it; turn on /tokenizer_info; ask the server for its tokenizer config""",
        nouns="/tokenizer_info; the tokenizer info endpoint; tokenizer information; the tokenizer config over http; lm-eval support",
        problems="lm_eval asks for /tokenizer_info and gets 404; /tokenizer_info is not found; my tool needs the tokenizer config",
        asks="can clients read the chat template; where do I get the tokenizer info; does lm-evaluation-harness work",
        keys="tokenizer_info; tokenizer info; lm eval; lm-evaluation-harness; tokenizer endpoint",
    ),
    option(
        "disable-fastapi-docs",
        "removes /openapi.json from the server.",
        "--disable-fastapi-docs",
        goals="hide the openapi description; turn off /openapi.json; not publish the api schema; remove the swagger description",
        nouns="/openapi.json; the openapi description; the api schema document; swagger; the fastapi docs",
        problems="anybody can read /openapi.json; our policy forbids a public api description",
        asks="is there an openapi.json; can the openapi document be hidden; where is the swagger file",
        keys="openapi; openapi.json; swagger; fastapi docs; api description; disable docs",
    ),
    option(
        "fingerprint-mode",
        "sets what system_fingerprint of answers shows: full, hash, custom or none.",
        "--fingerprint-mode hash",
        goals="""change the system_fingerprint; hide the version in the fingerprint; send no system_fingerprint; have a hash as
        fingerprint; not tell clients the server's version in answers""",
        nouns="system_fingerprint; the system fingerprint; the fingerprint mode; the fingerprint of answers",
        problems="system_fingerprint tells my version; the fingerprint should be null; clients see which version I run",
        asks="what is in system_fingerprint; can the fingerprint be hidden; how do I turn off system_fingerprint",
        keys="fingerprint; system_fingerprint; fingerprint mode; hide version",
    ),
    option(
        "fingerprint-value",
        "gives the text of system_fingerprint for --fingerprint-mode custom.",
        "--fingerprint-mode custom --fingerprint-value prod-1",
        goals="use my own system_fingerprint; set the fingerprint to a text of mine; send a custom fingerprint",
        nouns="a custom fingerprint; the fingerprint value; my own system_fingerprint; the fingerprint text",
        problems="I want system_fingerprint to be the name of my deployment; the fingerprint should be a fixed text",
        asks="can I choose the fingerprint text; where does my own fingerprint go",
        keys="fingerprint value; custom fingerprint; own fingerprint; fingerprint text",
    ),
)
