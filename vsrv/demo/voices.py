"""More questions by option, each written out in full and in many voices: the asks of a Topic, continued."""

from __future__ import annotations

from vsrv.demo.topic import phrases

VOICES: dict[str, tuple[str, ...]] = {
    name: phrases(block)
    for name, block in {
        "host": """my phone is on the same wifi but cannot open the page; I run vsrv on a desktop and want to use it from my
        laptop; ssh tunnels are annoying, let me connect directly; curl from another box says connection refused; how do I
        publish it on all addresses; it should answer on eth0 too; put it on the wlan address; let the whole house use it;
        the server runs in a vm and the host system cannot reach it; why does curl http://{ip}:8000 time out; listen on ::;
        bind to every nic please; which address does it bind; only accept local connections; I need it on the public
        interface; in docker I see nothing from outside although the port is mapped; serve on the tailscale address; is it
        exposed to the internet by default; make it accessible for everyone in the building; use the second network card;
        restrict it to loopback; the tablet in the kitchen should be able to talk to it; other hosts get no answer; I want
        to query it from a different room; how does my coworker reach the server on my desk; the server should be reachable
        at {ip}""",
        "port": """8000 collides with django; run it on {port}; please use {port}; start on {port}; I want :{port};
        OSError errno 98; django runs there already; which number goes behind the colon in the url; serve at localhost:{port};
        how do I get rid of the 8000 in the url; the socket is already in use by another process; two vsrv on one box, how;
        change 8000 to {port}; why is it on 8000; my hosting provider only forwards {port}; some other thing sits on the same
        number; move it away from 8000; I already have something listening there; let it choose another number; use the
        standard https port; bind on {port} rather than eight thousand; open {port}; kubernetes expects port {port}; port =
        {port}; can I run two at once on different ports""",
        "ssl-certfile": """is there tls; do you do https; can the traffic be sniffed; how do I get an encrypted endpoint;
        we must not send anything unencrypted; data in motion has to be encrypted; I created a cert with openssl, how do I
        use it; certbot gave me fullchain.pem; make curl https://localhost work; the app store demands https; privacy
        officer says plain http is forbidden; mixed content error because my page is https and the api is http; chrome marks
        it as insecure; where does my wildcard certificate go; how to enable secure sockets; no more cleartext; secure the
        transport; I want the lock symbol; TLS termination in vsrv itself; switch from http to https; how to serve via
        https://; the certificate expired, where do I set the new one; self-signed cert for testing; is http the only
        protocol; can it be reached with https; use a cert; pem file for the server; do I need a reverse proxy to get tls;
        secure transport layer; how do I keep the wire confidential; compliance wants encryption in transit""",
        "ssl-keyfile": """the file with BEGIN PRIVATE KEY, where do I pass it; I have two files, cert.pem and key.pem; the
        other half of the certificate; which flag for the private part of the certificate; the key that openssl wrote next to
        the certificate; set the location of the tls private key; key file for https; my cert comes with a separate key;
        certbot privkey.pem where; the ec key of my cert; private part of the key pair; pass server.key to vsrv""",
        "ssl-ca-certs": """each client has to present its own certificate; zero trust: verify the client; devices without a
        certificate signed by us must be refused; smart card certificates for users; authenticate callers with x509; mutual
        authentication by certificates; the server should verify who connects by cert; where do I put our root CA; trust
        store for clients; require tls client auth; only laptops with a company certificate may connect; how to check the
        peer certificate; two sided tls; client side certs""",
        "api-key": """some people found my server and use it; how do I keep freeloaders away; give out keys to my friends;
        lock it; I want a login for the api; who may call the endpoint; it must not be open to the world; require
        Authorization header; sk-something like at openai; my openai library wants OPENAI_API_KEY, what do I set here;
        where do I define the secret that callers send; bots are hammering it without permission; put a passphrase in front;
        two teams, two keys; can I hand out different keys; how do I change the key; only people who know a code word should
        get in; prevent unauthorised access; x-api-key; token based access; what if I want credentials; is it protected;
        password for the endpoint; clients must identify themselves; block everyone without a token; make it members only;
        how is access controlled; who is allowed to use the server; accept just my own app; keep outsiders away""",
        "allow-unauthenticated": """it is an isolated lab, I want no key; the firewall protects us, no key needed; why does it
        insist on an api key; start without key on all interfaces; let me bind publicly without a secret; it exits and says
        that a key is required; I do not care about security here; turn the safety check off; run wide open; leave the door
        open; no credentials necessary; guests should get in without a token; I know what I am doing, no key; serve to the
        whole lan with no password; a public demo without login; skip authentication entirely; nobody should need a key;
        refuse to start without --api-key, how do I get around that; free for all access; how do I disable the need for a
        key; open to everybody without token""",
        "allowed-origins": """my single page app gets a CORS error; ajax from another domain; my vue app cannot call it; the
        dashboard on another host is blocked by the browser; only pages from {domain} should be able to call; which domains
        may make ajax calls; the options preflight returns 403; access-control headers are missing; let {url} through; browser
        based client fails; let only one site use it from javascript; a chrome extension should call the api; no
        cross-origin; how do I add an origin; wildcard origin *; fetch() is rejected; my html page cannot talk to localhost;
        xmlhttprequest has been blocked; the web console says origin not allowed; I host a page elsewhere and it should
        query vsrv; frontends on other domains; open webui in the browser is refused because of the origin; whitelisting
        web sites; same origin policy; safari refuses the cross site call; my website only""",
        "root-path": """we expose it at {url}{prefix}; haproxy routes {prefix} to it; our gateway adds {prefix} in front of
        every path; caddy with a sub folder; the routes should start with {prefix}; I get 404 behind the proxy because of the
        prefix; it does not sit at the root of the domain; apache passes the whole path including {prefix}; host several
        services on one domain by path; kubernetes ingress with a path; base url is not /; url has an extra first segment;
        can the api live in a sub folder; behind a gateway with a path prefix; all endpoints below {prefix}""",
        "uds": """no tcp, just a socket file; I want /tmp/vsrv.sock; local ipc only; nginx upstream unix:; filesystem
        permissions should decide who connects; can it avoid the network stack; listen on a path instead of a port; unix
        domain; communication through a file socket; how to use sockets in the file system; get rid of tcp""",
        "max-body-bytes": """my long prompt gives 413; http 413; entity too large; a client posts a gigabyte; how large can a
        post be; forbid gigantic json; I send a big batch and it is refused for its size; cap on uploads; the request is
        bigger than allowed; increase the allowed size of the body; maximum content-length; attackers could send endless
        bodies; my {gb} MB request does not get through; limit bytes per call; is there a max json size""",
        "keep-alive-timeout": """sockets that do nothing should be closed; after how long is a silent connection dropped;
        connection reset by peer when I wait between calls; keep sockets warm; my pool of connections dies; load balancer
        idle timeout must be below the server's; close quiet connections; http persistent connection lifetime; connection:
        keep-alive for how long; inactive clients should be disconnected; reuse the tcp connection for minutes""",
        "max-num-queued-reqs": """I do not want an endless waiting line; too many people in line; how long can the line get;
        better refuse than let them wait; return 503 early; back pressure; the waiting room is too big; cap the number of
        requests that wait; what if more requests come than it can handle; traffic spikes fill the queue; reject when
        saturated; limit outstanding requests; how do I avoid a pile up; tell clients to come back later; drop excess
        requests; retry-after when busy; overloaded server should say no; the server is flooded with requests; backlog
        size""",
        "shutdown-timeout": """give running answers time when the pod goes away; deployments cut the last answers off; finish
        in-flight requests; ctrl-c should not kill streams; docker stop kills answers halfway; how long does it wait for
        unfinished requests when stopping; stop immediately; let it wind down; wait for open streams before leaving;
        systemctl restart drops users; terminate politely; time to complete work on exit; blue green deployment; do not
        interrupt running generations on stop; in flight requests at shutdown; when I stop it, people lose their output;
        clean up before exit; allow {n} seconds to finish; quit without waiting""",
        "log-level": """it talks too much in my terminal; too many lines; I want DEBUG; show me everything; trace what happens;
        only print when something goes wrong; mute it; spam in the console; the console is full of info lines; more details
        please, I am debugging; where is the verbose switch; make it silent; print warnings only; I need to see internals;
        stdout is noisy; turn up logging; hush; how talkative is the log; increase the detail of logging; errors only""",
        "log-format": """emit json; one json per line for our collector; vector wants json lines; parse logs automatically;
        logs for kibana; make log lines machine friendly; log in a structured way; plain text versus json log; cloudwatch
        needs json; our siem needs structured events; logs as key value; jsonl logging; get logs into elk; log entries in
        json""",
        "enable-log-requests": """who called my server and when; write down each call; I want an audit trail of calls; show
        each incoming call; does it write a line per request; too many lines, one per request; hide the request lines;
        see the status code of each request in the log; no line for each call please""",
        "max-connections": """too many sockets; limit clients that stay connected; EMFILE too many open files; how many
        sockets can be open; someone opens connections without end; number of tcp sessions; slowloris; cap tcp connections;
        how many connections does it accept""",
        "max-num-seqs": """how many folks can chat in parallel; we are a team of {n}; my class has {n} pupils and all type at
        the same time; does it answer one after the other; run {n} generations together; I want more throughput by batching
        more requests; how many streams can run; parallel decoding of many requests; the fifth user has to wait; one user
        blocks the other; max concurrent generations; limit it to {n} parallel requests; cap the batch; what is the batch
        size; serve a crowd; handle a rush of users; concurrency of {n}; {n} at once; do requests run one by one or
        together; only let {n} run at a time; too many at once make each slow; set the number of slots; how many seats does
        it have for users; more workers for more users; many persons at the same moment; can two persons use it at the same
        time; n_parallel; parallel slots; we have {n} agents hitting it together; several chats simultaneously; concurrent
        people; degree of parallelism for requests""",
        "max-model-len": """the bot forgets what I said earlier; I paste a long contract and it fails; can it read a whole
        pdf; ctx {big}; context of {big}; how big is the window; let it see more of the history; my text has {big} tokens;
        token budget for prompt plus answer; maximum input length; what is the longest prompt; the input is longer than
        allowed; limit how long requests can be; the chat breaks after many messages; long chats; my novel does not fit;
        increase memory of the chat; it loses the thread after a while; max tokens in total; shorter context to save memory;
        set max length; raise the limit of tokens per conversation; how far back can it remember; extended context; summarise
        {n} pages; prompt exceeds the limit; length limit of the input; it only takes short texts; make room for longer
        texts; i want to send more text; how many words can I send; num_ctx in ollama, what is it here; -c in llama.cpp;
        feed it a very long file; larger window please; sequence too long; sliding out of the window; bigger conversations;
        how long may the discussion get""",
        "max-num-batched-tokens": """how much prompt is computed per step; scheduler iteration token budget; bigger prefill
        steps; tokens in one forward pass; a long prompt makes the others stutter; inter token latency jumps when a new
        prompt arrives; ttft is too high, process bigger chunks; number of tokens the engine handles in an iteration; tune
        throughput versus latency of steps; prompt tokens per iteration; budget for each engine step; smaller steps for even
        streaming; per step token limit; total tokens in a batch; how large are the chunks of a prompt""",
        "gpu-memory-utilization": """it hogs the whole card; leave a few GB of vram; my game crashes because vram is gone; use
        {pct}% of the gpu memory; only {pct} percent of vram please; RuntimeError: CUDA out of memory; torch OOM; oom on a
        {gb} GB card; I share the gpu with a colleague; run two servers on one gpu; why is vram full before any request;
        give it a bigger part of the card; the desktop freezes because the gpu memory is used up; not enough memory on the
        device; allocate less on the gpu; it crashed: out of memory; insufficient vram; how much of the card does it grab;
        stable diffusion runs on the same gpu; reduce graphics memory; fit on a {gb}GB gpu; 0.{n} of the gpu; it wants more
        memory than my gpu has; memory error on the gpu; use the gpu only partly; half of my vram""",
        "kv-cache-memory-bytes": """reserve {gb} GB for keys and values; exactly {gb} GiB of cache; kv pool exhausted; too
        many preemptions; set an absolute cache size; not a fraction but bytes for the cache; how much ram goes to the kv
        cache; the cache is too small for all users; cache of {gb}G; shrink the kv pool; on my cpu box the cache eats the
        ram; sequences are preempted; more room for cached tokens; give attention memory {gb} gigabytes; the kv storage;
        fixed amount of memory for kv; how do I size the cache; ram for context of all users""",
        "kv-cache-dtype": """store keys and values in 8 bit; halve the kv cache by fp8; cache in lower precision; fp8 cache;
        what type has the kv cache; e4m3 cache; int8 kv; quantised cache; compress the kv cache; kv in fp16""",
        "enable-prefix-caching": """all my requests begin with the same instructions; same 2000 word system prompt every time,
        is it recomputed; turn off reuse of prompts; do follow-up questions recompute everything; few-shot examples repeated
        in each request; remember what was computed for earlier prompts; share computation between similar prompts; cache the
        instructions; radix cache; kv reuse; identical beginnings; is the beginning of the prompt cached; avoid the work for
        equal starts; I benchmark and want no prompt reuse; the second identical request is faster, why; prompt reuse; save
        work on a common preamble; long shared instructions; clear every cached prompt between requests; rag with the same
        documents over and over; reuse old prompts""",
        "enable-chunked-prefill": """cut prompts in slices; are big prompts done in parts; piecewise prompt processing; split
        prefill; prefill in parts beside decode; disable chunking of the prefill; interleave prefill and decode""",
        "block-size": """tokens in one page of the cache; how many tokens per kv page; page granularity; smaller pages; paged
        kv with {n} tokens per page; size of a block in tokens; cache block of {n}; the block length of paged attention""",
        "device": """force CPU; my box has no nvidia hardware, does it run; run on my processor; gpu or cpu; do I need a
        graphics card; make use of my 4090; it should run on the gpu; is the gpu used at all; leave the gpu alone and compute
        on the cpu; no cuda here; only cpu available; laptop without gpu; compute on the graphics card; pick the hardware; why
        is my gpu at 0 percent; does it do cuda; inference on processor; run it in cpu mode; accelerate with the gpu; where
        does the computation happen; can it work on a plain server without accelerator; amd or nvidia or cpu; hardware
        choice""",
        "dtype": """fp16 please; bf16 is not available on my old card; use half floats; 32 bit floats for exact results; weights
        in sixteen bit; numerical format; which float type; brain float; lower precision for speed; convert to half; make the
        weights smaller by 16 bit; force float32; floating point format of the model; single precision; --half; torch_dtype;
        volta cards have no bfloat16; full precision please""",
        "threads": """all eight processors are busy; keep two cores free; the machine gets hot, use fewer cores; it should use
        all my cores; pin it to {n} cores; {n} threads; OMP_NUM_THREADS; nproc; how parallel is the cpu computation; top shows
        800 percent; take only {n} of my cpus; my editor lags while it generates because the cpu is busy; use fewer
        processors; max cpu; number of cpu workers for the maths; limit processor load; it should not take every core; more
        cpu power for it; -t in llama.cpp; use half of the cores; cpu hog""",
        "enforce-eager": """no cudagraphs; skip capturing; start is slow: capturing graphs; run without graph capture; plain
        eager please; turn graphs off; graphs crash on my card; disable cuda graph; launch kernels one by one; cuda graph
        memory""",
        "scheduling-policy": """paying customers first; who goes first; batch jobs should wait for interactive ones; let urgent
        ones overtake; vip requests; is it a fair queue; fifo or priority; order in which waiting requests run; the priority
        field in requests; privileged users; some calls matter more; first in first out; important traffic before background
        traffic; jump the line""",
        "tensor-parallel-size": """spread over my 4 cards; I own two 3090s; can both cards work together; -tp 2; tp=2; model too
        big for one card, use two; two gpus as one; multi-gpu inference; run across {n} cards; use all gpus; nvlink; shard over
        gpus; pipeline parallel""",
        "seed": """same prompt, different output each time; make it stable; I need repeatable experiments; fix the rng; set a
        constant seed; deterministic please; why is the reply not the same twice; unit tests need fixed output; reproduce an
        earlier run; random number seed; no randomness between restarts; set random state; get identical text again; replay
        the same sampling; non deterministic output""",
        "served-model-name": """my sdk sends model gpt-4; call it {name}; pretend the model is called {name}; friendlier name;
        the model id is ugly; publish under the name {name}; the client demands model={name}; 404 model not found; how is the
        model called in the api; hide the folder name; name for the model in responses; alias for my model; another id in
        /v1/models; clients want to say {name}; change what the models list shows; label for the model; the api should report
        a different model name; hard-coded model name in my app; two names for the same model""",
        "revision": """checkout a certain commit of the weights; stick to an older version; not main but another branch; lock
        the model to a hash; the repo changed and I want the old files; use tag v1.0 of the model; weights from last month;
        git ref of the model; hub repo at a specific commit; which version of the repo is loaded; version locking for the
        model; guard against upstream changes""",
        "download-dir": """my root disk is tiny; weights should land on {path}; the models take too much room in my home;
        where on disk are the weights; put downloads on the big drive; move the hub cache; ~/.cache is full; store the files
        on a network share; choose where the model gets saved; several servers share one model store; HF_HOME; path of the
        downloaded models; destination of downloads; disk location of models; the ssd is full of models; keep the weights in
        {path}""",
        "load-format": """random weights for a perf test; I have no weights, only config; pretend weights; benchmark shape only;
        noise instead of weights; which checkpoint formats can it read; do not read real weights; test the server without a
        download; pytorch .bin files; does it load pickle files; fast start without reading gigabytes; placeholder weights""",
        "chat-template": """custom jinja; my base model has no conversation format; apply a different instruct format; change
        how roles are written; template.jinja; the im_start markers are wrong; use the vicuna format; format of system and
        user messages; alpaca style prompts; how do I tell it how to put messages together; replace the template of the
        model; the model needs a special prompt layout; render messages my way; tokenizer_config has no template; own prompt
        layout; the conversation markup""",
        "tokenizer": """take the tokenizer from somewhere else; swap the tokenizer; custom vocabulary; other tokenizer file; my
        fine tune lacks tokenizer files; separate tokenizer repo""",
        "hf-token": """llama is gated, where is the login; meta wants approval, how do I pass my token; 401 while downloading
        from the hub; huggingface-cli login; hf_xxx token; private repo on hugging face; access denied to the model; I was
        granted access but it does not download; credentials for the model hub; the download needs a login; restricted model;
        use my huggingface account; gated repo error; permission to download""",
        "generation-config": """do not take sampling presets from the checkpoint; ignore the presets that come with the weights;
        why does the server use temperature 0.6 by itself; the model folder has generation_config.json and I do not want it;
        neutral defaults like vllm; where do the preset sampling values come from; use the presets of another folder; no
        presets; checkpoint defaults off""",
        "override-generation-config": """default temperature {temp} for all callers; everybody should get {temp}; make replies
        more focused by default; less random please; top_p {temp} unless specified; too creative; answers vary too much;
        server side default for max_tokens; greedy unless asked; the model rambles, set a repetition penalty for all; preset
        top_k; cannot set sampling in my client; how hot does it sample by default; temperature zero for everyone; change
        the sampling values used when a request has none; min_p default; make it more predictable for all clients; global
        temperature; standard creativity""",
        "max-logprobs": """I want the {n} best alternatives per token; how sure is the model about each word; probabilities of
        candidates; logprobs above 20; top {n} logprobs; likelihood of every token; limit for top_logprobs; scores of tokens;
        log likelihoods; confidence per token""",
        "config": """store all flags in one place; not type so much; is there an rc file; a file instead of flags; my start
        command is three lines long; declarative configuration; save the flags; yaml or toml; where do I write down the
        options; ansible should write a configuration; keep options in git; load flags from disk; /etc/vsrv; permanent
        settings; settings that survive; put everything into a file; read my settings from {file}; default options file""",
        "default-chat-template-kwargs": """qwen3 without thinking; no thoughts please; it shows <think> in the answer; turn the
        reasoning of the model off; answers start with think; direct answers without reasoning; pass a variable to jinja;
        enable_thinking=false; suppress thinking; the model thinks too long before it answers""",
        "quantization": """awq 4bit checkpoint; load a gguf; q4_k_m; does it take gptq; 8 bit; bitsandbytes; int4 model; is
        fp8 supported; smaller weights by quantising; run a 4-bit model; quantised checkpoint; exl2; compressed tensors""",
    }.items()
}
