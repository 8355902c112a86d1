"""Questions about the engine and about running it, in the words of many trades and of other software; see voices_more.py."""

from __future__ import annotations

from vsrv.demo.topic import phrases

ENGINE_VOICES: dict[str, tuple[str, ...]] = {
    name: phrases(block)
    for name, block in {
        "max-num-seqs": """could twenty pupils use one instance in the same lesson; OLLAMA_NUM_PARALLEL, what is it called in
        vsrv; llama-server has -np for slots, where is that; we roll it out to the call centre, {n} operators type
        simultaneously; the log says Running: 1 and Waiting: 7, why does it not take more; answers are served strictly one by
        one, I want them side by side; how many generations may share the gpu at one moment; what number is sensible for a
        small card, {n} or more at the same time; widen the batch; narrow the batch so that each single user gets faster
        tokens; only one chat at any moment please, the box is weak; default of parallel decoding; simultaneous generation
        ceiling; batch width; max running requests; TGI calls it max-batch-size; when my colleague generates, mine stands still
        until he is finished; at {n} open chats the speed per person gets awful, run fewer together; it should serve whole
        department in same minute, how do; does continuous batching have an upper bound; the queue is not my problem, I want
        more of them to be actively decoding; raise active slots from {n} to more; running sequences limit reached; double the
        amount of requests being worked on; hackathon with {n} teams on a single endpoint, what must I prepare; is there such
        thing as worker slots; my load test shows a plateau at {n} running while the rest wait; I have bought a huge gpu and
        still only a handful of requests are active""",
        "max-model-len": """the assistant has amnesia after a dozen messages; This model's maximum context length is exceeded,
        please reduce the length of the messages; HTTP 400 context_length_exceeded; I would like to drop in an entire novel;
        our lawyers upload contracts of {n} pages and get an error about the length; what is the longest text it digests;
        ollama num_ctx counterpart; llama.cpp -c {big}; --ctx-size {big}; TGI max-total-tokens; {big} window please; the
        whisper transcript of our meeting is way too lengthy for it; how far back does the chat look; I need less window,
        memory is tight on this laptop; the maximum of input plus output; which upper bound has prompt and completion together;
        max_position_embeddings is 40960, can I use only {big}; is the full length of the model used by default; my agent
        collects so much history that the calls begin to fail; source code of the whole repository as input; it told that my
        input is over the limit of tokens, how to make bigger; long ctx; hold more turns of a dialogue; chop down the maximum
        sequence so that it fits in ram; prompt has 9000 tokens but only 4096 are allowed; room for {big} tokens of history;
        how many pages of A4 can I hand it; rag chunks do not all fit in the prompt""",
        "max-num-batched-tokens": """the amount of tokens computed in one iteration of the scheduler; when a colleague pastes a
        book, my stream hiccups; token stream gets jerky as soon as new prompts come in; faster prefill on a strong gpu, which
        knob; TGI max-batch-prefill-tokens; llama.cpp -b and -ub, physical batch; n_batch; ubatch size; how much work goes in
        one forward call; tokens per engine iteration default; smaller chunks so that the decode stays fluent; bigger chunks so
        that prompts are swallowed quicker; time to first token is terrible with long inputs, gpu has power left; inter token
        latency spikes; what is a reasonable value for the step budget, 2048 or 8192; step budget {big}; iteration size in
        tokens; prefill throughput is low; one step computes too much and everyone stutters; reading the prompt goes in too
        small bites; it is about size of the pieces in which the prompt is eaten; sglang chunked-prefill-size; trade prefill
        speed against even output; each iteration handles at most how many tokens over all requests; activation memory per step
        is too high, fewer tokens in a pass; batch of prefill and decode tokens, upper bound""",
        "gpu-memory-utilization": """the graphics memory is gone as soon as the server is up; OutOfMemoryError: tried to
        allocate 2.00 GiB; CUBLAS_STATUS_ALLOC_FAILED at startup; my monitor stutters because the card has no memory left;
        comfyui needs some of the card too; a whisper process lives on that card as well, leave it {gb} GB;
        --mem-fraction-static from sglang; TGI cuda-memory-fraction; 0.9 is too greedy for my workstation; how big a slice of
        the card is taken by default; nvidia-smi reports 22 of 24 GB, I have hardly any traffic; take no more than {pct}
        percent of the card; I rent one a100 and two teams must fit on it; cap gpu ram; less vram; squeeze a bit more out of
        the card, there is {gb} GB unused; vram percentage; the card explodes with oom under load; free memory on device is
        less than desired; I can not play games while the server runs because the video ram is eaten; jupyter notebook on same
        gpu dies when vsrv starts; proportion of the accelerator's memory; allowed share of the card; crash with
        cudaErrorMemoryAllocation; two pods on one gpu by time slicing, divide the memory; why does idle server occupy nearly
        all the vram; put a lid on graphics memory; how to leave {gb} gigabytes of vram for the training job""",
        "kv-cache-memory-bytes": """Preempted lines keep coming in the log; gpu_cache_usage_perc stands at 1.0; kv_cache_usage
        is near one hundred percent, enlarge; I want to say an absolute figure, {gb}G, not a fraction, for the cache;
        VLLM_CPU_KVCACHE_SPACE, what is the name in vsrv; on a cpu only machine the process takes {gb} GB for keys and values;
        no free blocks left for new sequences; more gigabytes for attention keys and values; cut the cached keys and values
        down to 512M; how many bytes get reserved for the k and v tensors; our pod has a memory limit of {gb}Gi and is
        OOMKilled because of the cache size; cache pool {gb}G; dedicate {gb} gigs to the kv store; sequences are thrown out and
        recomputed; what is the automatic size of the kv pool; hard number for kv; kv memory budget in megabytes; KV cache is
        not large enough for one request of maximum length; the raspberry has few ram, smaller kv please; attention state takes
        how much memory; pin the pool of cached tokens at an exact amount; does it accept 4G or only plain bytes for the cache;
        the automatic share for the cache comes out wrong, I prefer to say it by hand; recompute because of missing cache
        space""",
        "kv-cache-dtype": """llama.cpp --cache-type-k q8_0; -ctk q8_0 -ctv q8_0; OLLAMA_KV_CACHE_TYPE; fp8_e5m2 for the kv;
        fp8_e4m3; which number format do cached keys and values have; squeeze twice as many tokens into the cache by eight bit
        storage; can keys and values be held at a lower precision than the weights; kv compression; is a quantized cache
        available; kv in bf16 while the weights are fp32; half sized cache entries by fewer bits; kv scales in the checkpoint,
        are they used; in vllm we set fp8 for the cache, copy that; turboquant or kivi style cache; int4 keys and values; eight
        bits for the attention cache; cache element type; ValueError: kv cache dtype must be auto; bit width of the k and v
        tensors; reduce precision of cached attention only; would 8 bit kv hurt quality and is it there; kv fp8 or fp16, what
        do you offer; store cache in float8 to have more users""",
        "enable-prefix-caching": """each request carries the same three pages of rules at the top; the second time it is
        answered much quicker, where does that come from; OpenAI has prompt caching, you too; anthropic cache_control, is there
        something alike; sglang RadixAttention; cache_prompt in llama.cpp; prefix cache hit rate is zero; does an agent loop
        pay for the whole transcript at every step; is the history of the dialogue processed anew with each message; our policy
        does not permit that computed prompts are kept, off with it; measure cold prompts without any reuse; no reuse of
        earlier computation for my benchmark; warm prompts; I attach the same manual to every question, costs much time; keep
        the computed preamble in memory; avoid paying for the identical intro {n} times; same header in all prompts, can it be
        computed just once; does it recognise that two prompts start alike; is automatic prompt reuse on from the beginning;
        how do I empty or stop the prompt reuse; ttft falls on repetition, I need honest numbers; sharing of computed
        beginnings; few shot block at the top of each call is always the same; common opening text; kv reuse over turns off;
        multi turn gets slower as it must read all again; audit asks whether earlier prompts are kept in the cache, switch this
        off""",
        "enable-chunked-prefill": """vLLM V0 had a switch for chunking the prefill; is a long input eaten in slices by default;
        no slices, whole prompt at one go; can I turn slicing of inputs off; prefill and decode in the same batch; does a long
        prompt stop all the others until it is read; --no-enable-chunked-prefill; sarathi style scheduling; mixed batches of
        prompt tokens and output tokens; are inputs handled piece by piece; dynamic splitfuse; piggyback decode onto prefill;
        chunk prompts yes or no; I want the prompt to be read in a single pass; must I activate the splitting of inputs myself;
        prompt splitting on or off; piecemeal reading of big inputs; do running answers continue while a big input is read; is
        there chunk-wise prompt ingestion; unchunked prefill; break a large prompt into parts; in our vllm command line chunked
        prefill is enabled, does vsrv know it; prefill happens bit by bit, is that a must; interleaving of reading and
        writing""",
        "block-size": """granularity of kv pages; PagedAttention page length; how many token positions go in one cache page; 16
        or 32 tokens a page, which is better; pages of sixteen; TGI has a kv block of 1, yours; flashinfer page_size; only full
        blocks are shared, so I want finer ones; tokens per page; waste in the last page of each sequence; internal
        fragmentation of the paged cache; how coarse is the cache divided; enlarge pages to {n} tokens; smallest unit of the kv
        cache; kv page granularity default; what is the unit in which cache is allotted to a sequence; block length 64; shorter
        blocks for better prefix hits; allocation unit of attention memory; cache line length in tokens; number of slots in a
        block; do bigger blocks make it faster; how long is one block of the paged cache; my short prompts never hit the cache
        as a block is too long""",
        "device": """intel laptop with no dedicated graphics, will that do; Torch not compiled with CUDA enabled; RuntimeError:
        Found no NVIDIA driver on your system; n-gpu-layers 0 in llama.cpp, I want the same; gpu is broken, fall back to the
        processor; GPU utilisation stays at zero while the processor sweats; is my 3060 used for it or not; does an apple m2
        work, or only nvidia and cpu; amd radeon, rocm; where do the calculations happen; I want it on the graphics chip;
        compute only on the main processor; a cheap vps with no accelerator; docker container has no --gpus, must I tell it
        something; force the accelerator to be used; --device cuda; auto detection of the hardware picks the wrong one; switch
        between processor and graphics card; it started on CPU but there is an h100 in the machine; for the tests in CI there
        are no gpus; put the computation on the nvidia; mps or metal backend; kubernetes node without gpu; run it plain on
        xeon; is hardware acceleration active; keep the gpu free, use processor instead; old office pc, only core i5 inside;
        how it decides cpu or gpu""",
        "dtype": """Bfloat16 is only supported on GPUs with compute capability of at least 8.0; tesla T4 and bf16; gtx 1080,
        which float type is right; weights occupy double of what I expected, 32 bit it seems; load in 16 bits rather than 32;
        numbers of the model as half floats; float precision default; are the parameters kept in the type of the checkpoint;
        nan and inf in the logits with float16; rounding differences disturb us, compute everything in single precision;
        torch.float16; cast checkpoint to half; model.half(); need bit exact comparision with transformers in fp32; on the cpu,
        is bf16 quicker than fp32; the fp32 checkpoint should become smaller in memory; which of the three float types shall I
        take for a v100; auto, half, bfloat16 or float; mixed precision; sixteen bits per weight; accuracy is poor, go to
        higher precision; parameter precision; the checkpoint was saved as float32, I want it halved at load; --torch-dtype in
        other tools; lower precision weights without quantising; data format of the weights in memory""",
        "threads": """OMP_NUM_THREADS=4; llama.cpp -t {n}; --threads-http no, I mean the compute threads; load average is above
        {n} since the server runs; the fan screams; the whole vm is blocked since each core is loaded; give it just {n} vCPUs;
        use half of the processors, the rest is for postgres; only one core is busy and the other ones sleep; intra op
        parallelism of torch; torch.set_num_threads; cpuset, taskset, how many cores will it see; my container has a cpu limit
        of {n} and it starts 64 threads; cpu throttling in kubernetes; numa box with {n} cores; hyperthreads or physical cores,
        which count; battery drains because all cores run; desktop is sluggish as the maths takes each core; tokens per second
        on cpu are low, more cores; processor share; thread pool size; core limit; leave {n} cores for the database; how many
        cores it takes by default; be nice to the other programs on this processor; more compute workers on the cpu; ryzen with
        sixteen cores, it should be using them all; restrict to {n} cores""",
        "enforce-eager": """Capturing CUDA graph shapes takes ages; no torch compile please; cudaErrorStreamCaptureInvalidated;
        startup on the gpu spends a minute recording graphs; the graphs take {gb} GB of vram; --cuda-graphs 0 in TGI;
        --disable-cuda-graph in sglang; run kernels directly without recorded graphs; GGML_CUDA_DISABLE_GRAPHS; I debug a
        kernel and want eager pytorch; I restart it fifty times a day in development, skip the recording; graph replay off;
        operations launched individually; is the model captured at start; what does eager cost in speed; eager vs graphs; no
        compile step; graph recording crashes on an old driver; boot time on gpu is long due to warm up of graphs; without
        graphs; pytorch profiler shows only a graph launch, I want to see each kernel; illegal memory access during graph
        replay; turn recorded launches off; quick start on the card at the price of some speed""",
        "scheduling-policy": """my nightly batch makes the chat slow, the chat should win; who comes next when there is a line;
        premium customers ahead of free ones; support desk before bulk summaries; lower number means more important, how do I
        activate that; "priority": 5 in the body does nothing; does priority in the json have effect; order of service; fair or
        by rank; the boss must not stand behind the interns; sort the waiting requests by urgency; jump ahead of others;
        interactive over background; give precedence to the alarms; let short urgent things overtake; fifo; queue discipline;
        rank based queue; arrival order or importance; nice levels for requests; preemptive priorities; qos classes for
        callers; the error says priority needs another scheduling; is the one who came first also served first; two classes of
        traffic, gold and bronze; background crawler should only get leftovers; in what sequence are waiting ones taken""",
        "seed": """twice the same question, two different texts; snapshot tests are flaky as the text changes; scientific
        paper, reviewers must be able to repeat our runs; random_state; torch.manual_seed; --seed in llama.cpp; OpenAI has seed
        in the body, is there one for the entire server; randomness changes with each boot; start the dice from a fixed point;
        after a reboot I want the very same sequence of outputs; regression tests need constant text; entropy source of
        sampling; same input same output; how random is initialised; audit demands that results can be reproduced; the default
        seed; reproduce yesterday's output; constant randomness for the demo; initial value of the random generator; rng start
        value; freeze the dice; is the sampler seeded; stop giving me another text on each run; I compare two versions and the
        noise of sampling disturbs; numpy-like seeding; want always equal reply for equal prompt""",
        "tensor-parallel-size": """our server has {n} a100, will they all be used; a 70B needs more than one card;
        CUDA_VISIBLE_DEVICES=0,1 uses only the first; llama.cpp --tensor-split; --num-shard 2 in TGI; the other gpu does
        nothing while the first is full; combine the memory of both cards; sum of vram over cards; pool the vram of {n} gpus;
        NCCL; ray cluster; model parallelism over two hosts; layer split; does it scale across cards; dual gpu; two rtx 4090 in
        one case; world size; distributed inference; does a dgx make sense here; data parallel; a model larger than a single
        card; spread the layers across graphics cards; half the model on each card; can I join cards together; vllm serve
        --tensor-parallel-size 4 worked, here it is refused; 8 gpus in one node; pp and tp; expert parallel""",
        "engine-stall-timeout": """health endpoint answers 503 stalled; tokens stopped in the middle of a sentence and nothing
        came any more; Xid 79 gpu has fallen off the bus and the server just sits there; cuda kernel never returns; engine does
        not tick; no step for {n} seconds; my cpu is so slow that it thinks the engine is stuck; a single step on the old
        laptop takes over half a minute and then it gets killed as hung; deadman switch; liveness of the inner worker; how long
        may the inner process stand motionless; raise the hang limit, steps are slow under the debugger; detect lock up;
        deadlock detection; everything hangs but the process is alive; hangs at once, no crash, no error; heartbeat of the
        engine; is somebody watching over the engine; restart after silence of the engine; how quickly does it realise that the
        engine is wedged; WatchdogSec from systemd, do you have your own; driver lockup at night, we noticed only in the
        morning; frozen worker, not crashed; gpu reset left the worker hanging; the inner loop blocks for ever; false alarm: it
        was merely busy and got restarted""",
        "engine-load-timeout": """reading {gb} GB of weights from a slow usb disk; ceph volume is slow and the start is broken
        off; nfs so slow that the weights are not in after a quarter of an hour; the weights never finish to load; startup
        aborted, no progress while loading; patience for loading a 70B checkpoint; loading checkpoint shards stays at 40
        percent for ever; limit for bringing the weights into memory; spinning disk, big checkpoint, start fails after 900
        seconds; do not give up while loading; wait unlimited for the model to come up; kubernetes startupProbe and load time;
        model loading took too long; how long does it try to load before it exits; load deadline; s3 mount, first read takes
        {n} minutes; shorten the time before a blocked load is called failed; start gives up too early; weights from tape like
        storage; loading stalls at start, not during generation; init time limit; cold start is slow on our network share;
        --init-timeout; OLLAMA_LOAD_TIMEOUT; initial read of the model times out; a hung disk at boot should make it fail
        rapidly""",
        "engine-max-restarts": """the engine exited with signal 11 for the third time; segmentation fault, up again,
        segmentation fault again; Restart=on-failure is my job, the server should just die; StartLimitBurst in systemd, same
        thing here; CrashLoopBackOff, I would rather see the pod end at the first crash; retries after an engine failure; how
        many crashes are tolerated; give it unlimited tries to come back; too many engine restarts, shutting down; engine keeps
        dying; does it stand up again after being killed; zero restarts; what follows when the engine is gone for the fourth
        time in ten minutes; kill -9 on the engine process, is a new one made; self repair after a crash, how often; crash
        budget; resurrect the engine; respawn limit; Out of memory: Killed process, engine gone, does a new one come; let
        docker handle the failure, exit at once; maximum attempts; stop trying after {n} failures; the engine falls over daily,
        allow more recoveries; do users notice when the engine is started anew; automatic respawn; supervisord startretries;
        cuda device side assert kills the engine every time, number of tries""",
        "log-prompts": """I would like to read what my colleagues write to the bot; compliance officer needs the wording of
        inputs in the log; OLLAMA_DEBUG shows the prompt, how here; does the log hold the wording or only sizes; is user text
        stored anywhere in the log; GDPR: do questions of people land on disk; which final prompt did my app build, I must see
        it; log lines with the message content; debugging langchain, print the incoming text; record inputs; log user input;
        what words come in; wording of requests; journal should have the question itself; request lines have ids but no
        content; print incoming messages; input text logging off or on by default; content logging; the text people enter; is
        my question visible to the admin; eavesdrop on prompts for debugging; our auditors want to sample real inputs; show
        beginning of the inputs; capture what clients submit; no prompt content in the log, how to get it; the system prompt my
        framework adds, can I look at it in the log""",
        "max-log-len": """the logged prompt ends after a few words; logged text is chopped; more than 200 characters in the log
        of prompts; prompt excerpt of {n} characters; how many characters of the input land in the log; the excerpt in the log
        is too brief; let the log keep the entire question; truncate the logged inputs earlier; log gets too fat because of the
        long excerpts of prompts; only the head of the question is printed in the log; vllm max_log_len; longer snippet;
        snippet size in log; characters per logged input; logged inputs stop in mid sentence; print prompts in full in the log;
        untruncated prompts in the log; I turned prompt logging on, but I see just the start of each; prompt logging is on,
        make it shorter; cut off for logged text; limit of letters for a logged question; system prompt fills the excerpt and
        the question is not visible in the log; first {n} letters of a prompt in the log; how long is the piece of prompt that
        is shown""",
        "disable-uvicorn-access-log": """INFO: 127.0.0.1:53412 - "POST /v1/chat/completions HTTP/1.1" 200 OK, do not print;
        uvicorn --no-access-log; uvicorn.access logger; our vllm script carries the uvicorn log flag, may it stay; is uvicorn
        used; vllm name for no request lines; silence uvicorn; uvicorn noise; same as access_log=False in uvicorn; uvicorn.run
        without access log; mute the uvicorn lines; migration from vllm: uvicorn logging off; does it know vllm's flag for
        uvicorn; no uvicorn output; fastapi uvicorn access lines are annoying; hide uvicorn; uvicorn prints too much; the
        uvicorn switch from our vllm helm chart; --uvicorn-log-level; uvicorn logger silent; stop uvicorn from writing each
        hit; vllm's access log flag""",
        "disable-access-log-for-endpoints": """GET /health every five seconds in my log; nginx access_log off for one location,
        how here; the load balancer's probes drown the interesting lines; uptime kuma pings it all the time, keep that out of
        the log; leave /v1/models out of the log; open webui asks for /v1/models constantly and each gives a line; no line for
        these routes; only certain paths without logging; exempt some urls from logging; filter log by path; mute /metrics in
        the log; I want probes to be logged, they are missing; why do /livez calls not show up in the log; hide one route, keep
        the others; selective request logging; prometheus scrapes in the log; readiness checks make the log unreadable; list of
        silent paths; log all but some endpoints; consul checks clutter the journal; which urls are exempt from request lines
        by default; drop chatter of monitoring; log filter for endpoints; path based log exclusion; omit /tokenize from the
        log; just the boring urls should vanish from the log""",
        "disable-log-stats": """I do not want any numbers collected; engine counters off; no vllm:num_requests_running any
        more; vllm: series vanish; save the overhead of counting; bare minimum, no statistics whatsoever; stop measuring; are
        statistics on by default, can I kill them; telemetry of the engine off; switch off counters and the status line
        altogether; privacy: no usage counters; no engine metrics in /metrics; statistics: never; turn the whole statistics
        thing off; drop the histograms; get rid of vllm:time_to_first_token_seconds; remove engine gauges; statistic disable;
        stats kill switch; without performance counters; don't gather throughput figures; nobody here looks at the stats, leave
        them out; vllm --disable-log-stats; both the line and the engine metrics should go; does collecting the stats slow it
        down, can I leave it away""",
        "log-stats-interval": """Avg prompt throughput, Avg generation throughput line each ten seconds; the line with Running
        and Waiting comes far too frequently; VLLM_LOG_STATS_INTERVAL; a heartbeat line with tok/s once a minute; print the
        load more rarely; how many seconds lie between two reports; every {n} seconds a status report in the log; status report
        frequency; speed in the log more frequently; tokens/s every second in the console for my demo; journald gets a
        throughput row all the time, thin it out; keep the metrics but no periodic line; stats period; cadence of the
        throughput report; show cache usage in the log at regular times; log how long the queue is from time to time; interval
        of the report; less status lines; report of throughput each five minutes; I look at the log and see engine numbers too
        seldom; where does the repeated speed line come from; rarer statistics; periodic summary; tempo of the stat line; log
        current load every half minute; 0 so that the line never comes""",
        "enable-tokenizer-info-endpoint": """lm_eval --model local-chat-completions; GET /tokenizer_info 404 Not Found;
        EleutherAI harness cannot fetch the tokenizer; remote tokenizer for evaluation; clients should learn the bos and eos
        tokens from the server; read tokenizer_config.json remotely; which template does the server use, ask it by curl; curl
        localhost:8000/tokenizer_info; tokenizer settings by rest; evaluation tool wants special tokens from the endpoint; let
        callers see how messages are templated; publish bos, eos and template; tokenizer metadata; harness for benchmarks of
        quality like mmlu; run hellaswag against the server; expose tokenizer; tokenizer details for clients; is the route for
        tokenizer information on by default; my client must build prompts itself and needs the server's template; obtain
        special tokens from a running server; lm eval remote tokenizer; props endpoint of llama.cpp, chat_template there;
        endpoint that tells about the tokenizer; tokenizer_backend remote; mmlu scores of my server, the tool complains of
        missing tokenizer info""",
        "disable-fastapi-docs": """/docs and /redoc; scanner found an exposed api specification; pentest: openapi document is
        public; nobody shall see the list of routes; swagger ui; take the api description off the net; postman imports
        openapi.json, where is it, and can I forbid it; hide api spec; the spec of the http interface should be secret; curl
        localhost:{port}/openapi.json gives a document, remove it; conceal the endpoints list; redoc off; no self description
        of the api; docs_url=None in fastapi; openapi_url=None; security hardening, remove the schema page; attackers may read
        our schema at openapi.json; withdraw the interface description; vllm disable fastapi docs; json description of all
        routes; API reference page off; our security team does not want swagger in production; is there interactive api
        documentation like fastapi has; machine readable interface description""",
        "fingerprint-mode": """fp_ string in each completion; system_fingerprint null like in ollama; what does the fingerprint
        field tell; does a completion reveal which version we have; version disclosure in the json of completions; hash instead
        of plain version; openai's system_fingerprint, what do you put there; omit the fingerprint; obscure software version in
        completions; none, hash, full or custom; fingerprint format; pentest says completions disclose the build; leave the
        fingerprint field empty; system_fingerprint is too talkative; shorten system_fingerprint to a hash; fingerprint
        privacy; our customers must not learn which release runs; which information is inside the fingerprint; do not reveal
        software in the json; fingerprint default; has the fingerprint the model version too; field system_fingerprint
        unwanted; strip the version from system_fingerprint; how to detect a backend change, openai has a fingerprint for
        it""",
        "fingerprint-value": """system_fingerprint should read prod-eu-1; put our git commit in system_fingerprint; blue or
        green, mark it in the fingerprint; stamp each completion with the name of the cluster; own string instead of the
        computed fingerprint; our release number as fingerprint; a text that I pick for system_fingerprint; fingerprint =
        staging; set the content of a custom fingerprint; tell apart two deployments by their fingerprint; build number in the
        fingerprint; arbitrary fingerprint; literal fingerprint; mode custom wants a value; what goes with fingerprint mode
        custom; custom mode says the value is missing; label replies with our deployment id through system_fingerprint;
        hard-coded fingerprint; fp_mycompany; company name in the fingerprint; constant text as fingerprint for our tests; pass
        my own fp string; which text shows up when the fingerprint is custom; CI writes a build tag that should come back in
        system_fingerprint""",
    }.items()
}
