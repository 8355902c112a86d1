"""What the demo model knows about the options of the engine: concurrency, context, memory, devices, scheduling."""

from __future__ import annotations

from vsrv.demo.topic import option, refusal

ENGINE = (
    option(
        "max-num-seqs",
        "sets how many requests are generated at the same time (concurrency); the others wait.",
        "--max-num-seqs 64",
        goals="""serve more users at once; handle {n} users at the same time; limit the concurrency; set the number of
        parallel requests; run more requests in parallel; process {n} requests simultaneously; allow more concurrent
        streams; cap simultaneous generations; answer several people at once; increase concurrency; serve {n} clients
        concurrently; handle many conversations in parallel; raise the batch size; limit the batch size; limit how
        many sequences run together; process one request at a time; only handle a single request at once; generate for
        many users together; bound the number of active requests; have more simultaneous chats""",
        nouns="""the concurrency; the number of parallel requests; the number of simultaneous users; the maximum batch
        size; the number of concurrent requests; parallelism of requests; the number of sequences per step; the number
        of active requests; the concurrent user limit; how many run at once; the number of running sequences;
        simultaneous streams; parallel generations; concurrent sessions""",
        problems="""only a few users are served at a time; {n} people want to use it at the same time; a second user has
        to wait until the first is done; requests are not handled in parallel; my class of {n} students uses it all
        at once; too many run in parallel and each becomes slow; I expect {n} simultaneous users; with {n} parallel
        clients some have to wait; we are {n} developers on one server""",
        asks="""how many users at once; how many people can use it simultaneously; how many requests in parallel; can
        it serve {n} users; what is the maximum concurrency; how many concurrent requests are possible; does it handle
        many users; what limits the number of parallel chats; can several people chat at the same time; how many
        clients can it take""",
        keys="""concurrency; concurrent; parallel; simultaneous; users; batch size; parallel requests; at once; number
        of users; simultaneous users; parallelism; max seqs; sequences; many users; multi user; throughput users""",
    ),
    option(
        "max-model-len",
        "sets the context length: how many tokens prompt and answer may have together.",
        "--max-model-len 8192",
        goals="""have longer conversations; increase the context length; use a bigger context window; limit the context;
        send longer prompts; handle long documents; set the context size; reduce the context to {big}; allow {big}
        tokens; fit a whole book in the prompt; remember more of the chat; make the context shorter; set the maximum
        sequence length; get a {big} context; process long texts; lengthen the window; paste long files; summarise long
        reports; extend the history it can see; cap the number of tokens per request; use the full window of the model;
        shrink the window; feed it a {big} token document""",
        nouns="""the context length; the context window; the maximum context; the context size; the maximum number of
        tokens; the sequence length; the prompt length limit; the length of conversations; the token limit; the
        maximum prompt length; the window size; how long a chat can be; max context tokens; n_ctx; the memory of the
        conversation; total tokens per request""",
        problems="""my prompt is too long; the prompt does not fit; it says maximum context length exceeded; the chat
        forgets the beginning; my document has {big} tokens; long conversations fail; I get an error that the input is
        longer than the context; the conversation becomes too long after a while; the text is cut because of the
        length; the model's context is too large for my memory; I need {big} of context; this model's maximum context
        length is too small""",
        asks="""how long can a conversation be; how many tokens fit; how long may the prompt be; what is the context
        window; can I get {big} context; how to use a longer context; how much text can I send; where is the token
        limit; how do I make it remember more; how many tokens can I send; what is the equivalent of num_ctx""",
        keys="""context; context length; context window; long prompt; tokens; longer conversations; token limit;
        sequence length; window; n_ctx; {big}; max context; long documents; context size; num_ctx; long context; ctx""",
    ),
    option(
        "max-num-batched-tokens",
        "sets how many tokens one engine step computes in all: more is faster prefill, fewer is smoother streaming.",
        "--max-num-batched-tokens 2048",
        goals="""set the token budget of a step; process more prompt tokens per step; speed up prompt processing; limit
        tokens per iteration; tune the prefill chunk size; cap the tokens in a batch; make prefill faster; reduce the
        stall when a long prompt arrives; balance latency and throughput; change the size of the prefill chunks;
        compute bigger batches of tokens; keep streaming smooth while others send long prompts; limit the work per
        forward pass; raise the batch token limit""",
        nouns="""the token budget; the tokens per step; the batch token limit; the number of tokens per batch; the
        prefill chunk size; tokens per iteration; the step size in tokens; tokens per forward pass; the batched
        tokens; the chunk size of prompts; token budget per step; the scheduler budget""",
        problems="""long prompts are processed slowly; prefill takes too long; streaming stutters when somebody sends a
        long prompt; the first token takes long because of a small budget; each step takes too long; a huge prompt
        freezes the other streams""",
        asks="""how many tokens does a step handle; how many tokens are batched together; how do I tune prefill speed;
        what is the chunk size; which option limits the tokens in one step; how to set the batch token budget""",
        keys="""token budget; batched tokens; tokens per step; prefill; chunk size; batch tokens; prefill speed; step
        budget; tokens per batch; prefill chunk; max batched tokens""",
    ),
    option(
        "gpu-memory-utilization",
        "sets the share of GPU memory that vsrv may use, from 0 to 1.",
        "--gpu-memory-utilization 0.8",
        goals="""use less gpu memory; leave vram for other programs; use only half of the gpu; limit the vram; use more
        of the graphics card memory; share the gpu with another process; avoid cuda out of memory; fix out of memory on
        the gpu; take {pct} percent of the gpu; set the fraction of vram; reserve less video memory; reduce the gpu
        footprint; fill the whole gpu; leave room on the card; let two models share one gpu; stop it from eating all
        vram; give it more of the card; keep some vram free for the desktop""",
        nouns="""the gpu memory share; the vram usage; the fraction of gpu memory; how much vram is used; gpu memory
        usage; the video memory; the graphics memory fraction; gpu memory utilisation; the share of the card; vram
        limit; the percentage of gpu memory""",
        problems="""it runs out of gpu memory; cuda out of memory; I get OOM on my graphics card; it takes all the
        vram; another program needs the gpu too; no vram is left for my desktop; torch.cuda.OutOfMemoryError; the gpu
        is full; nvidia-smi shows all memory in use; my card has only {gb} GB; it grabs {pct} % of the gpu; we run out
        of memory on the gpu; the card is too small; it does not fit on my gpu; out of memory""",
        asks="""why does it use all my gpu memory; how much vram does it take; can I run it next to another model on
        the gpu; how to limit the vram; what can I do about CUDA OOM; how do I leave some gpu memory free; I run out
        of memory what now; why is my gpu memory full""",
        keys="""gpu memory; vram; oom; out of memory; cuda out of memory; video memory; gpu share; memory fraction;
        graphics memory; gpu usage; gpu full; utilization; nvidia memory""",
    ),
    option(
        "kv-cache-memory-bytes",
        "sets the size of the KV cache in bytes (4G, 512M) in place of the automatic share.",
        "--kv-cache-memory-bytes 4G",
        goals="""set the kv cache size; give the kv cache {gb} GB; limit the memory of the cache; make the kv cache
        bigger; make the kv cache smaller; fix the cache at {gb} gigabytes; reserve exactly {gb} GB for keys and
        values; control how much ram the cache takes; use less ram on the cpu; reduce the ram usage of the cache; pin
        the cache size in bytes; allot an exact amount to attention cache; store more keys and values""",
        nouns="""the kv cache; the kv cache size; the cache memory; the key value cache; the memory for keys and
        values; the size of the attention cache; kv memory; the cache in gigabytes; the ram for the kv cache; cache
        bytes; the kv pool size; the kv budget""",
        problems="""the kv cache is too small; the kv cache takes too much memory; there are not enough kv blocks;
        requests are preempted because the cache is full; it uses too much ram on my cpu machine; the kv cache is full;
        the kv cache usage is at 100 percent; I get preemptions all the time; my server has {gb} GB of ram and the
        cache takes it all""",
        asks="""how big is the kv cache; how much memory does the kv cache use; can I set the cache size exactly; how
        to give the cache {gb} GB; which option sets the kv memory; how many bytes for the kv cache""",
        keys="""kv cache; kv; cache size; kv memory; key value cache; cache memory; kv cache size; kv bytes;
        preemption; cache ram; kv blocks; attention cache""",
    ),
    option(
        "kv-cache-dtype",
        "must be auto or the type of the weights, which the KV cache has in this version. Change --dtype instead.",
        "MODEL --kv-cache-dtype auto",
        goals="""store the kv cache in fp8; use half precision for the cache; quantise the kv cache; change the
        precision of the kv cache; keep keys and values in bfloat16; save cache memory by a smaller number type; use 8
        bit keys and values; choose the data type of the cache""",
        nouns="""the kv cache type; the data type of the kv cache; the precision of the kv cache; the cache precision;
        fp8 kv cache; the kv data type; the cache number format; kv quantization; the kv cache dtype""",
        problems="""I want the cache in lower precision; keys and values should be 16 bit; the kv cache is stored in
        float32; an fp8 kv cache would save memory""",
        asks="""can the kv cache be fp8; in which precision is the kv cache; can the cache be quantised; how to use a
        16 bit kv cache; which type do cached keys have""",
        keys="kv cache dtype; kv dtype; kv precision; fp8 kv; cache dtype; kv quantization; kv type; cache precision",
    ),
    option(
        "enable-prefix-caching",
        "reuses the computed start that prompts of one tenant share (on by default; --no-enable-prefix-caching: off).",
        "--no-enable-prefix-caching",
        goals="""reuse the system prompt; cache shared prompts; avoid recomputing the same prompt; turn off prefix
        caching; enable prompt caching; reuse common prompt beginnings; speed up repeated prompts; share the cache
        between requests with the same beginning; disable the prompt cache; skip computing the same prefix again; keep
        the conversation history computed between turns; make follow-up turns cheaper; remember computed prefixes;
        cache the few shot examples; stop reusing earlier prompts""",
        nouns="""prefix caching; the prompt cache; prefix cache; prompt caching; reuse of prompts; the shared prefix;
        automatic prefix caching; apc; the reuse of earlier computation; caching of common beginnings; cache hits for
        prompts; context caching""",
        problems="""every request has the same long system prompt; the same prompt is computed again and again; all my
        prompts start with the same text; I send the same document with each question; each turn recomputes the whole
        chat; prompts that repeat are slow; I want no caching between requests for privacy; my benchmark is wrong
        because prompts are cached""",
        asks="""does it cache prompts; is the system prompt computed each time; can it reuse the prefix; is there
        prompt caching; how do I switch the prompt cache off; are repeated prompts faster; does it remember the shared
        start""",
        keys="""prefix caching; prompt cache; prefix cache; prompt caching; shared prefix; reuse; apc; system prompt
        cache; cache prompts; same prompt; repeated prompts; prefix""",
    ),
    refusal(
        "enable-chunked-prefill",
        "is always on: long prompts are computed in chunks beside other streams. --max-num-batched-tokens sets their size.",
        goals="""split long prompts into pieces; process prompts in chunks; turn off chunked prefill; mix prefill and
        decode; keep other streams going during a long prompt; enable chunked prefill; divide the prompt processing;
        prefill in slices""",
        nouns="""chunked prefill; prompt chunking; splitting of prompts; piecewise prefill; prefill in chunks; prompt
        slicing; the chunking of long prompts""",
        problems="""I want prompts computed in one piece; prompts should be cut into chunks; prefill should not be
        chunked""",
        asks="""does it chunk the prefill; are long prompts split; can chunked prefill be disabled; are prompts
        processed in pieces""",
        keys="chunked prefill; prompt chunks; split prompts; chunked; chunking; prefill chunks",
    ),
    option(
        "block-size",
        "sets how many tokens one block of the KV cache holds.",
        "--block-size 32",
        goals="""change the block size; set the page size of the kv cache; use blocks of {n} tokens; change the
        granularity of the paged cache; use smaller cache blocks; set tokens per block; use bigger pages""",
        nouns="""the block size; the page size; the kv block size; the number of tokens per block; cache block length;
        the paged attention block; the size of a cache page; the granularity of the kv cache; tokens in a block""",
        problems="""I want smaller kv blocks; pages of {n} tokens would suit my prompts better; the prefix cache only
        matches whole blocks""",
        asks="""how many tokens are in a block; how large is a kv page; can the block size be changed; what is the
        page size of the paged attention""",
        keys="block size; page size; kv block; paged attention; tokens per block; blocks; pages; paging",
    ),
    option(
        "device",
        "chooses where the model runs: auto, cpu or cuda.",
        "--device cpu",
        goals="""run on the cpu; run without a gpu; use the gpu; force cpu; use cuda; run on my graphics card; choose
        between cpu and gpu; not use the gpu; run on an nvidia card; switch to the processor; do inference on cpu only;
        make it use my rtx; ignore the graphics card; run on a machine with no gpu; select the accelerator; offload to
        the gpu; move the model to cuda""",
        nouns="""the device; cpu or gpu; the hardware it runs on; gpu inference; cpu mode; the accelerator; cuda; the
        compute device; cpu only mode; the graphics card; hardware selection; where the model runs""",
        problems="""I have no gpu; it does not use my gpu; it runs on the cpu although I have a gpu; my graphics card
        is idle; it is slow because it runs on the processor; cuda is not found and I want the cpu; nvidia-smi shows
        nothing while it generates; my laptop has no nvidia card""",
        asks="""does it need a gpu; can it run on cpu; how do I make it use the gpu; which hardware is used; can I use
        cuda; is my gpu used; does it work without a graphics card; how to force cpu; gpu or cpu""",
        keys="cpu; gpu; cuda; device; no gpu; graphics card; nvidia; accelerator; cpu only; rtx; hardware; processor",
    ),
    option(
        "dtype",
        "sets the number type of the weights: auto, float32, float16 or bfloat16.",
        "--dtype bfloat16",
        goals="""use half precision; run in bfloat16; use fp16; load the weights in float32; change the precision;
        convert the model to 16 bit; use full precision; halve the size of the weights; set the data type; compute in
        bf16; use float16 instead of bfloat16; pick the numeric format of the weights; run the model in 32 bit""",
        nouns="""the precision; the data type; the number type; the weight type; half precision; fp16; bf16; float16;
        full precision; the dtype of the model; the numeric format; floating point precision; 16 bit weights; the
        torch dtype""",
        problems="""my gpu does not support bfloat16; the weights are float32 and take too much room; I want exact
        float32 results; the model gives nan in fp16; I need full accuracy; my card is too old for bf16""",
        asks="""can I run in fp16; which precision is used; how do I get half precision; is it bf16 or fp16; can it use
        float32; how to set the data type of the model""",
        keys="precision; dtype; fp16; bf16; float16; bfloat16; half precision; float32; fp32; data type; 16 bit; half",
    ),
    option(
        "threads",
        "sets how many CPU threads the engine uses (default: every core it may use).",
        "--threads 4",
        goals="""use more cpu cores; limit the cpu usage; use only {n} cores; set the number of threads; leave some
        cores free; use all cores; run with {n} threads; reduce the cpu load; stop it from using every core; use one
        core only; give it {n} cpus; keep my computer responsive while it runs; spread work over all cores; restrict
        processor use""",
        nouns="""the number of threads; the cpu threads; the number of cores; the thread count; cpu cores; the core
        count; how many cores are used; multithreading; cpu parallelism; worker threads; processor usage; the number
        of cpus; openmp threads""",
        problems="""it uses all my cores; my cpu is at 100 percent; the fan is loud because all cores are busy; it only
        uses one core; other programs become slow because it takes all cpu; htop shows every core busy; my machine has
        {n} cores and it uses few; my pc freezes while it computes""",
        asks="""how many cores does it use; can I limit the cpu; how to use {n} threads; why is my cpu at 100 %; how do
        I leave a core free; can it use more cores; is it multithreaded""",
        keys="""threads; cores; cpu cores; cpu usage; thread count; cpu load; multithreading; number of cores; cpus;
        100% cpu; omp; nproc""",
    ),
    option(
        "enforce-eager",
        "turns CUDA graphs off: quicker start, a little slower generation.",
        "--enforce-eager",
        goals="""turn off cuda graphs; disable graph capture; run in eager mode; skip the graph capture at start; start
        faster without cuda graphs; debug without cuda graphs; avoid compilation; use eager execution; save the memory
        of cuda graphs""",
        nouns="""eager mode; cuda graphs; graph capture; eager execution; the cuda graph capture; compiled graphs;
        no-graph mode; capturing of graphs""",
        problems="""capturing cuda graphs takes too long; graph capture fails; cuda graphs need too much memory; I
        suspect the cuda graphs cause a bug; the start is slow because of graph capture""",
        asks="""can I disable cuda graphs; how to run eagerly; does it use cuda graphs; is there an eager mode; how to
        skip the capture""",
        keys="eager; cuda graphs; cuda graph; graph capture; eager mode; no graphs; capture; cudagraph",
    ),
    option(
        "scheduling-policy",
        "sets the order of requests: fcfs (first come, first served) or priority (lower number first).",
        "--scheduling-policy priority",
        goals="""give some requests priority; serve important requests first; change the order of requests; let vip
        users jump the queue; use priority scheduling; prefer urgent requests; process requests in order of arrival;
        put batch jobs behind interactive users; rank requests by importance; favour paying customers""",
        nouns="""the scheduling policy; request priority; the order of requests; priority scheduling; first come first
        served; priorities; the scheduler policy; fcfs; the order of processing; urgent requests; preferential
        treatment""",
        problems="""batch jobs block interactive users; some requests are more important; all requests are treated the
        same but mine are urgent; my priority field is ignored""",
        asks="""can requests have a priority; in which order are requests served; is it first come first served; how to
        prefer some users; who is served first""",
        keys="priority; scheduling; fcfs; order of requests; priorities; urgent; scheduler; policy; first come; vip",
    ),
    option(
        "seed",
        "sets the seed of the random numbers, so that runs can be repeated.",
        "--seed 42",
        goals="""get reproducible results; make the output deterministic; set the random seed; get the same answer every
        time; repeat an experiment exactly; fix the randomness; make sampling repeatable; control the random number
        generator; get identical outputs on each start; seed the rng""",
        nouns="""the random seed; the seed; reproducibility; determinism; the random number generator; repeatable
        results; deterministic output; the rng seed; randomness; identical answers""",
        problems="""I get a different answer every time; results are not reproducible; the output changes after each
        restart; my tests need the same output again; each run gives something else; sampling is random and I want it
        fixed""",
        asks="""how do I get the same output twice; is it deterministic; can results be repeated; why does the answer
        differ each time; how to fix the randomness; where do I put the seed; can I make it reproducible""",
        keys="""seed; random; reproducible; deterministic; reproducibility; same output; randomness; rng; repeatable;
        determinism; random seed""",
    ),
    refusal(
        "tensor-parallel-size",
        "cannot be above 1 in this version: one device for each model. Run several servers behind a load balancer.",
        goals="""use several gpus; split the model over two gpus; run on {n} gpus; use tensor parallelism; use both of my
        graphics cards; distribute the model over many cards; shard the weights across gpus; use multiple gpus""",
        nouns="""tensor parallelism; multiple gpus; multi gpu; the number of gpus; several gpus; both graphics cards; model
        parallelism; two gpus; a second gpu""",
        problems="""I have two gpus; the model does not fit on one gpu but I have {n}; only one of my gpus is used; the second
        card is idle; we have a machine with {n} gpus""",
        asks="""does it support multi gpu; can it use two gpus; is tensor parallelism supported; how many gpus can it use; can
        the model be split over gpus""",
        keys="""multi gpu; two gpus; tensor parallel; multiple gpus; gpus; tensor parallelism; tp; sharding; several gpus;
        model parallel""",
    ),
)
