"""More questions in many voices, about the finer options, the other commands and what a server can do; see voices.py."""

from __future__ import annotations

from vsrv.demo.topic import phrases

SERVICE_VOICES: dict[str, tuple[str, ...]] = {
    name: phrases(block)
    for name, block in {
        "ssl-keyfile-password": """the key is encrypted with a passphrase, where do I type it; how do I tell vsrv the password for
        key.pem; our security team only hands out encrypted keys; openssl asks for a pass phrase when I read the key; start
        without being asked for the pem password; decrypting the tls key; bad decrypt when loading the key""",
        "ssl-cert-reqs": """reject anyone who does not bring a certificate; let people in with or without a client certificate; make
        mtls strict; make mtls voluntary; turn client cert checks from optional to required; I set the ca file but clients without
        cert still connect; enforce that clients present a cert""",
        "ssl-ciphers": """pentest report says weak cipher; only modern cipher suites please; restrict tls 1.2 suites; which
        encryption algorithms are offered in the handshake; how do I ban RC4 and 3DES; set ECDHE only; choose the algorithms of
        tls; a legacy java client cannot agree on a cipher""",
        "enable-ssl-refresh": """letsencrypt gave me a fresh certificate, must I restart; will a new cert be picked up on its own; my
        cert is replaced every 60 days; swap certificates without dropping connections; hot swap of the certificate; how does it
        learn about a renewed cert; does it watch the pem files; automatic cert refresh; stop it from reloading the cert""",
        "forwarded-allow-ips": """logs only show 127.0.0.1 because of nginx; I want the visitors' addresses in the log; my ingress
        passes X-Forwarded-For, who believes it; the source address is always the proxy; trust headers set by haproxy; see who is
        really calling behind cloudflare; real remote address; which hops are trusted""",
        "api-key-file": """fair use: {n} requests a minute for each customer; stop one tenant from hogging the gpu; quotas for
        departments; per user limits; can I cap tokens per day for a key; I do not want keys in ps output; keep hashes of keys and
        not the keys; load api keys from disk; several customers on one server with separate limits; read keys from a toml; give
        each key an expiry date; how do I throttle a noisy client; two tenants with different priority; a customer exceeds his
        share; add a key while the server runs; too many requests 429; billing by tenant; where do tenants come from""",
        "metrics-auth": """prometheus data should not be public; who is allowed to scrape; hide /metrics behind a token; my metrics
        are open to the world; require auth for scraping; lock the metrics page; bearer token for prometheus; scrape with a key""",
        "metrics-port": """scrape from another port; move prometheus off the main listener; metrics on {port} please; expose metrics
        internally only; a second listener for monitoring; I want /metrics separately from /v1; different port for grafana's data
        source; keep monitoring traffic apart""",
        "prefix-cache-scope": """can tenant A see from timing what tenant B asked; share cache hits among all customers; cached
        prefixes across api keys; isolation of kv reuse between users; one customer's cached system prompt used by another; side
        channel through the cache; make cache reuse global; per key prompt cache; is it safe to cache prompts of different users""",
        "allow-credentials": "my frontend sends cookies; credentials: include in fetch; xhr withCredentials true; session cookies",
        "allowed-methods": "limit which verbs browsers may use; PUT from a web page is blocked; cors verbs; only POST from websites",
        "allowed-headers": "x-my-header is blocked by cors; custom header in browser requests; which headers may javascript send",
        "h11-max-incomplete-event-size": """header section too big; a giant cookie makes it fail; allow 64 kB of headers; very long
        authorization header rejected with 431; bytes allowed before the body""",
        "h11-max-header-count": "requests with over a hundred headers; how many header lines; limit header lines; 431 too many",
        "enable-request-id-headers": """correlate a client error with the server log; how do I look up one call in the log; give
        every call an id; which id do I send to support; trace a call through the system""",
        "queue-timeout": """users should not sit in line for more than {n} seconds; give up if it has not started after {n} s; drop
        requests stuck in the queue; cap the wait before a request begins; patience of the queue; how long until a queued call
        gets an error; requests expire while queued; better an error than a long wait for a turn""",
        "request-timeout": """kill generations that run over {n} seconds; no answer should take longer than {n} minutes; hard limit
        for the run time of a call; abort answers that go on for ever; maximum time per call; the whole request must end within
        {n} s; stop endless generation; clients get 504; wall clock limit""",
        "prepare-timeout": """jinja template takes for ever; schema compile too slow; tokenizing a huge text is aborted; 400 because
        the preparation took too long; time allowed before generation""",
        "max-num-queued-tokens": """waiting prompts add up to millions of tokens; queue limit counted in tokens; reject when too many
        prompt tokens pile up; bound queued work by token count rather than by requests""",
        "max-num-queued-bytes": """bodies in flight use too much ram; total bytes of pending requests; front end memory grows with
        uploads; cap the ram that incoming requests take; limit buffered request data""",
        "max-n-sequences": """someone asks for 500 choices; n=100 gets an error; allow more candidates per request; restrict the n
        parameter; how many samples per prompt; upper bound for n""",
        "max-completion-prompts": """an array of {n} prompts is rejected; how long may the prompt array be; batching prompts within one
        request; many prompts in a single completions call""",
        "long-prefill-token-threshold": """one giant prompt should not block small ones; limit what a huge prompt takes per step; fair
        prefill between long and short prompts""",
        "async-scheduling": "overlap cpu and gpu work; gpu waits for python between steps; schedule ahead; pipelining of steps",
        "num-gpu-blocks-override": "force a certain amount of kv blocks; set the block pool by hand; exact block count for a test",
        "disable-sliding-window": "mistral's window off; no windowed attention; full attention instead of the window; swa off",
        "device-ids": """which of my cards is picked; use the rtx in slot 2; bind the server to gpu {n}; one instance per gpu, how do I
        choose; run on cuda:1; restrict to a single card out of four; pick the gpu; take the card with this uuid; second server
        on the other gpu; nvidia-smi lists two cards, use the latter""",
        "tool-call-parser": """function calls show up as raw text; {model} emits tool_call tags that nobody parses; vllm needed a parser
        name, what here; the wrong tool syntax is detected; which parser for llama; tool_calls is empty; treat tool output as
        hermes; my fine-tune uses another syntax for functions; stop interpreting tool calls; choose hermes or mistral""",
        "enable-auto-tool-choice": "do I still need the auto tool choice switch from vllm; auto tool choice flag of vllm; is auto allowed",
        "exclude-tools-when-tool-choice-none": "keep tool definitions out of the prompt when none may be called; tool_choice none but tools sent",
        "reasoning-parser": """chain of thought shows in the reply; strip think from content; where is reasoning_content; deepseek
        thoughts in a separate field; keep <think> in the output; raw thinking text; my ui shows the thoughts; separate the thoughts
        from the final answer; which tags enclose the thinking; thinking ends up in the message; hide chain of thought""",
        "structured-outputs-config": """json comes with many blanks; minified json by default; server wide settings for schemas; forbid
        extra fields in all schemas; json mode produces newlines for ever; default options of guided json""",
        "chat-template-content-format": "template loops over message.content parts; content as string for jinja; openai style parts",
        "response-role": "reply with role other than assistant; role name of generated messages; rename the speaker of answers",
        "enable-prompt-tokens-details": "is my prompt served from cache, where do I see it; cached token count in the reply; cache hit numbers",
        "enable-force-include-usage": """streaming replies lack token counts; count tokens of every stream for billing; usage chunk at
        the end always; my client cannot set include_usage""",
        "sse-keep-alive-interval": """cloudflare drops the stream after silence; the connection is cut before the first token arrives;
        ping comments in server sent events; long prefill and the proxy gives up; ': keep-alive' lines; heartbeat while waiting""",
        "return-tokens-as-token-ids": "numeric ids instead of strings in logprobs; token numbers; ids of sampled tokens",
        "logprobs-mode": "logprobs after applying temperature; processed vs raw; logits in place of logprobs",
        "runner": """turn qwen3 into an embedder; use llama for vectors; embedding endpoint refuses my chat model; pooling instead of
        generating; tell it that this is an embedding model; what task does the model run""",
        "pooler-config": "average the token vectors; cls or mean; vectors should have length one; no l2 normalisation; pooling of bert",
        "convert": "vllm --convert embed; adapter to make a classifier; turn a generator into a classifier",
        "hf-overrides": """tweak config.json values at start; wrong rope theta; extend context by yarn; change the number in config.json
        without touching the file; override architecture settings; patch the configuration of the checkpoint""",
        "any-model-name": """each app sends a different model string; accept gpt-4, gpt-3.5 and whatever; never answer 404 for a wrong
        model; my client hard-codes some model; treat all model names alike; do not care about the model field; take any name""",
        "trust-remote-code": "run modeling files from the repo; model wants to execute python; auto_map in config; is it safe to load unknown repos",
        "trust-request-chat-template": "client supplied jinja; template per request; chat_template in the body; own template in a call",
        "engine-stall-timeout": """it froze and nobody noticed; generation stands still; restart if no token comes for {n} seconds; the
        gpu hung; detect deadlock; health stalled; how long until a frozen worker is killed; self healing after a hang""",
        "engine-load-timeout": """weights on slow nfs; startup takes half an hour and is killed; loading stuck; how patient is the start;
        large checkpoint on a hard disk""",
        "engine-max-restarts": """segfault in the engine; crash loop; after a few crashes it gives up; keep restarting for ever; never
        restart by itself; what if the worker dies; automatic recovery after a crash; exit on crash so that docker restarts it""",
        "log-prompts": """what did the user actually type; audit of prompts; need the text of requests in my logs; show me what the app
        sends; are prompts recorded anywhere; privacy: is the prompt text logged; dump prompts""",
        "max-log-len": "prompt cut off in log; longer excerpts of prompts; only the first characters of a prompt are logged",
        "disable-uvicorn-access-log": "uvicorn access lines off; the vllm flag for uvicorn's log; kill uvicorn access logging",
        "disable-access-log-for-endpoints": """ignore some urls in the request log; /health spam; kubelet probes fill the log; skip
        logging for certain routes; no line for /metrics; quiet paths; monitoring polls clutter the access log""",
        "disable-log-stats": "no engine counters; drop vllm: series; turn engine stats off; I do not need throughput numbers",
        "log-stats-interval": """throughput report each minute; the running/waiting line comes too often; how frequently are tokens/s
        printed; periodic status line; print queue length every {n} s""",
        "enable-tokenizer-info-endpoint": "lm_eval wants tokenizer_info; expose the tokenizer config; get the template by http",
        "disable-fastapi-docs": "remove openapi.json; hide the schema of the api; no swagger; /docs off",
        "fingerprint-mode": "system_fingerprint leaks the version; set fingerprint to null; what is fp_ in the reply; hash only",
        "fingerprint-value": "own text as system_fingerprint; fixed fingerprint string; put my build id into system_fingerprint",
        "setup": """fresh debian host, how do I get torch; no pip internet access; copy wheels by usb stick; ModuleNotFoundError torch;
        first start on a new box; get the python packages for the pyz; which command downloads the dependencies; set up a server
        behind a firewall without pypi; prepare an isolated host; how do I get cuda torch; create the virtualenv for it; clean up
        old virtual environments; install everything needed""",
        "check": """will 8B fit into {gb} GB; how big a model can I load; is my toml correct; lint the configuration; verify before going
        live; test run without loading weights; how many sequences fit into memory; would it start with these flags; estimate vram;
        calculate the memory for {model}; find mistakes in my flags; sanity check; does my driver suffice""",
        "chat": """ask something from bash; a little chat program for the console; talk to it without a browser; cat file and ask about
        it; ssh session and want to chat; quick interactive test of the model; is a cli included; a prompt in my terminal; converse
        in the shell""",
        "complete": """let a base model continue a sentence in bash; raw completion from the shell; autocomplete a paragraph in the
        console; continue "once upon a time"; no chat, only text continuation on the command line""",
        "run-batch": """{n}000 rows to classify overnight; openai batch jsonl locally; feed a jsonl and get a jsonl; process prompts in
        bulk; restart an interrupted batch where it ended; custom_id lines; mass processing; no server, just a file of prompts;
        batch inference for a dataset; run all lines of a file""",
        "keys": """make me a key; an employee left, kill his key; someone posted our key online; new api key for a colleague; replace
        keys every month; which keys have I handed out; give tenant acme a key; key valid for {n} days; remove access of a user;
        how are keys generated; hand out a temporary key; invalidate a key at once""",
        "cert": """https for localhost in development; own ca for the lab; quick certificate; browser test with tls; pem files for a
        test; certificate without let's encrypt; sign a certificate for my host; create server.pem and server.key; internal pki;
        I need both a certificate and a key for trying https; issue a client cert""",
        "bench": """tokens/s of my machine; latency at {n} parallel users; compare vllm and vsrv; how quick is the first token; put
        load on it; throughput figures; hit it with {n} requests; measure performance; is my gpu fast enough; percentile
        latencies; simulate many users""",
        "completion": "tab in bash; suggest flags in my shell; zsh suggestions; press tab to fill in flags; completion script",
        "docs": "man vsrv; where is the manual; print the reference; option list as markdown; example toml please; offline documentation",
        "tools": """agents with functions; langchain tools; let it query my database by a function; weather function example; will my
        agent framework work; openai functions; plugin calls; must call function X; mcp style tools; make the model use a
        calculator; tool use with qwen; forced function""",
        "structured": """reply strictly as json; pydantic model as answer format; only allow A, B or C; output must validate against my
        schema; no prose, just json; response_format json_schema; xgrammar or outlines here; ebnf grammar; enforce a pattern; data
        extraction into fields; always parseable output; restrict the answer to given words; make it fill in a form""",
        "embeddings": """vector database; index documents for search; minilm; similarity of two sentences; sort search hits by
        relevance; semantic search; rag retrieval; bge-m3; cosine similarity; text to vector; e5 models; classify pairs; jina style
        rerank; which route gives vectors; sentence vectors""",
        "messages": """anthropic client against my own box; claude code with qwen; claude cli local; use my gpu for claude code;
        ANTHROPIC_AUTH_TOKEN; messages.create from the anthropic package; claude-compatible api; anthropic format""",
        "responses": """codex cli with a local model; responses.create; openai agents sdk; is the newer openai api there; codex against my
        own gpu; store false; stateful conversations by previous_response_id; codex toml""",
        "systemd": """start on boot; survive a reboot; keep it alive in the background; linux service; unit for systemctl; closes when I
        close ssh; run as a background service under its own user; autostart on ubuntu; restart on failure; install as daemon;
        enable the service; journalctl""",
        "balancing": """two gpus two servers one url; scale to three machines; spread requests over instances; proxy config for several
        backends; upstream block; leastconn; keep sessions on the same backend; backend dies, what do users see; zero downtime with
        two servers; haproxy.cfg; put several vsrv behind one address; redundancy; nginx retries on 503""",
        "zipapp": """single executable; copy one file by scp; no installation, just a file; make a portable version; pyz file; bundle
        everything; how is the release file made; pack the kernels; reproducible build; ship it to a customer as one file; list of
        parts sbom""",
        "absent": "fine-tuned adapter; peft adapter; look at a picture; eagle drafts; ngram speculation; upload an image to the model",
    }.items()
}
