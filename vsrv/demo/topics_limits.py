"""What the demo model knows about the finer limits: queues, timeouts, sizes, the scheduler and the choice of a GPU."""

from __future__ import annotations

from vsrv.demo.topic import option

LIMITS = (
    option(
        "queue-timeout",
        "sets how many seconds a request may wait for its turn; then it gets 503 (default 300; 0: no limit).",
        "--queue-timeout 30",
        goals="""limit how long a request waits in the queue; give up waiting after {n} seconds; set the maximum waiting time;
        drop requests that wait too long; let requests wait longer for their turn; fail requests that have not begun after
        {n} seconds; bound the time in the queue; wait without limit in the queue""",
        nouns="""the queue timeout; the waiting time in the queue; the maximum wait; the time a request may wait; how long a
        request waits for its turn; the longest wait; time in the queue""",
        problems="""requests wait for minutes before they begin; I get 503 queue_timeout; waiting requests are thrown away after
        five minutes; nobody wants an answer that begins after {n} seconds of waiting; requests time out before they start""",
        asks="""how long may a request wait; what happens to requests that wait too long; when does a waiting request give up;
        why do I get queue_timeout; how long does a request stay in the queue""",
        keys="queue timeout; waiting time; queue_timeout; wait limit; max wait; time in queue; wait too long",
    ),
    option(
        "request-timeout",
        "sets how many seconds a request may take in all; then it gets 504 (default 0: no limit).",
        "--request-timeout 120",
        goals="""limit how long a request may run; stop answers that take longer than {n} seconds; set a timeout for requests;
        abort requests after {n} seconds; give each request a deadline; bound the total time of a generation; end runaway
        generations; kill requests that take too long; cap the duration of a request""",
        nouns="""the request timeout; the deadline of a request; the total time of a request; the maximum duration; the time
        limit for answers; the timeout for a whole request; a generation time limit; 504 gateway timeout""",
        problems="""some requests run for an hour; I get 504 request_timeout; a request never ends; generations take far too
        long and should be stopped; one endless answer blocks a place""",
        asks="""is there a time limit for requests; how long may a request take; can slow requests be aborted; how do I set a
        deadline; what does X-Request-Timeout do; when does a request time out""",
        keys="""request timeout; deadline; time limit; request_timeout; 504; timeout; max duration; x-request-timeout; abort
        slow requests""",
    ),
    option(
        "prepare-timeout",
        "sets how many seconds template, tokenizing and grammar of one request may take (default 10).",
        "--prepare-timeout 30",
        goals="""allow more time for tokenizing; limit the time of the chat template; give complicated json schemas more time;
        bound the preparation of a request; stop slow templates; let the grammar be compiled longer""",
        nouns="""the prepare timeout; the tokenizing time; the time for the chat template; the time limit of preparation; the
        render timeout; the grammar compile time; the preprocessing timeout""",
        problems="""preparing the request took too long; my huge prompt is refused because tokenizing takes too long; my schema
        needs more time to compile; the chat template runs for too long""",
        asks="how long may tokenizing take; can the template time out; how do I give the preparation more time",
        keys="prepare timeout; tokenizing time; template timeout; render timeout; preparation; preprocessing time",
    ),
    option(
        "max-num-queued-tokens",
        "limits the prompt tokens of all waiting requests; above it clients get 503.",
        "--max-num-queued-tokens 1M",
        goals="""limit the waiting prompt tokens; bound the queue by tokens; cap the number of tokens that wait; measure the
        queue in tokens; refuse requests when {big} tokens are waiting; limit the queue by prompt length""",
        nouns="""the tokens in the queue; the queued tokens; the token limit of the queue; waiting prompt tokens; the number of
        waiting tokens; queue size in tokens""",
        problems="""a few requests with huge prompts fill the queue; the queue has few requests but millions of tokens; long
        prompts wait and delay everybody""",
        asks="how many tokens may wait in the queue; can the queue be limited by tokens; what is the limit of waiting tokens",
        keys="queued tokens; waiting tokens; tokens in queue; queue tokens; token backlog",
    ),
    option(
        "max-num-queued-bytes",
        "limits the bytes of request bodies in memory; above it clients get 503.",
        "--max-num-queued-bytes 512M",
        goals="""limit the memory of waiting requests; bound the memory that request bodies take; cap the bytes of all bodies;
        keep many large bodies from filling the ram; limit the total size of requests in memory""",
        nouns="""the bytes in the queue; the queued bytes; the memory of request bodies; the total size of all waiting bodies;
        the memory limit for uploads in flight""",
        problems="""many big uploads at once fill the memory; the front process grows with many large bodies; thousands of large
        requests eat the ram""",
        asks="how much memory may request bodies take; can the total size of waiting requests be limited",
        keys="queued bytes; bytes in queue; body memory; queue memory; total body size; bytes in flight",
    ),
    option(
        "max-n-sequences",
        "limits n, the number of answers that one request may ask for (default 64).",
        "--max-n-sequences 8",
        goals="""limit the n of a request; let a request ask for more answers; cap the number of choices; allow n={n}; stop
        clients from asking for hundreds of choices; bound best_of; get many alternatives from one request""",
        nouns="""the largest n; the number of choices; the limit of n; choices per request; answers per request; the maximum n
        parameter; alternatives per request""",
        problems="""my request with n={n} is refused; somebody asks for n=1000; I need more choices than allowed; it says n is
        too large""",
        asks="how many choices can one request have; what is the largest n; can n be limited; how many answers per request",
        keys="choices; max n; n choices; number of choices; n limit; several answers; best_of",
    ),
    option(
        "max-completion-prompts",
        "limits how many prompts one /v1/completions request may have (default 128).",
        "--max-completion-prompts 16",
        goals="""send more prompts in one request; limit the prompts of a completions request; batch {n} prompts in one call;
        cap the length of the prompt list; allow a list of {n} prompts""",
        nouns="""the number of prompts in a request; prompts per request; the list of prompts; the prompt array; the maximum
        number of prompts in a completion""",
        problems="""my list of {n} prompts is refused; a request has too many prompts; I send {n} prompts in one call and get
        400""",
        asks="how many prompts may one completions request have; can I send a list of prompts; is there a limit of prompts",
        keys="completion prompts; prompts per request; prompt list; prompt array; many prompts",
    ),
    option(
        "long-prefill-token-threshold",
        "limits how many tokens of one prompt are computed in one step (0: the whole budget).",
        "--long-prefill-token-threshold 512",
        goals="""keep one long prompt from taking a whole step; limit the share of a long prompt per step; let short prompts
        pass a long one; cap the tokens of a single prompt in a step; slow down huge prompts in favour of short ones""",
        nouns="""the long prefill threshold; the most tokens of one prompt in a step; the share of a long prompt; the long
        prompt threshold""",
        problems="""one long prompt takes the whole step and short ones wait; a single huge prompt takes all the token budget""",
        asks="how many tokens of one prompt go into a step; can a long prompt be kept from taking the whole budget",
        keys="long prefill; long prompt threshold; prefill threshold; long prefill threshold; tokens of one prompt",
    ),
    option(
        "async-scheduling",
        "prepares the next step while results of the last are handled (default: on for a GPU, off for the CPU).",
        "--async-scheduling",
        goals="""overlap scheduling and computing; turn on async scheduling; hide the cpu work behind the gpu; disable
        asynchronous scheduling; process results while the next step runs; keep the gpu busy between steps""",
        nouns="""async scheduling; asynchronous scheduling; the overlap of steps; overlapped scheduling; cpu overhead between
        steps; the gap between two steps""",
        problems="""the gpu is idle between steps; there are gaps between gpu steps; cpu overhead slows down the gpu""",
        asks="does it schedule asynchronously; can steps overlap; how do I turn async scheduling off",
        keys="async scheduling; overlap; asynchronous; async; overlap scheduling; gpu gaps",
    ),
    option(
        "num-gpu-blocks-override",
        "sets the exact number of blocks of the KV cache in place of the computed one.",
        "--num-gpu-blocks-override 2000",
        goals="""set the number of kv blocks; fix the count of cache blocks; use exactly {n} blocks; override the block count;
        test preemption with few blocks""",
        nouns="""the number of kv blocks; the block count; the exact number of blocks; how many cache blocks there are; the gpu
        blocks""",
        problems="""I want exactly {n} blocks in the kv cache; the computed number of blocks is wrong; I need few blocks to
        test preemption""",
        asks="how many kv blocks are there; can I set the number of blocks; which option overrides the block count",
        keys="num gpu blocks; block count; number of blocks; gpu blocks; blocks override; kv blocks number",
    ),
    option(
        "disable-sliding-window",
        "keeps every sequence within the model's sliding window, so that each layer sees all of it.",
        "MODEL --disable-sliding-window",
        goals="""turn off the sliding window; disable sliding window attention; use full attention only; cap the length at the
        sliding window""",
        nouns="the sliding window; sliding window attention; windowed attention; the attention window; swa; local attention",
        problems="the model has a sliding window and I do not want it; sliding window attention gives bad answers",
        asks="does it support sliding windows; can sliding window attention be switched off",
        keys="sliding window; swa; sliding window attention; attention window; windowed attention",
    ),
    option(
        "device-ids",
        "chooses the GPU by its number or UUID, as nvidia-smi -L shows it.",
        "MODEL --device-ids 1",
        goals="""choose which gpu is used; run on the second gpu; pick gpu 1; use a particular graphics card; select the card by
        its uuid; not use gpu 0; put one server on each gpu; replace CUDA_VISIBLE_DEVICES; pin it to one gpu; use the other
        graphics card""",
        nouns="""the gpu number; the gpu index; the gpu id; the uuid of the gpu; CUDA_VISIBLE_DEVICES; which gpu is used; the
        device ids; cuda:1; the card to use""",
        problems="""it takes the wrong gpu; gpu 0 is in use by somebody else; it always uses the first card; my display runs on
        gpu 0; both servers use the same gpu""",
        asks="""which gpu does it use; how do I run on gpu 1; can I choose the graphics card; how do I select the second gpu;
        what about CUDA_VISIBLE_DEVICES; can I name the gpu by uuid""",
        keys="gpu id; gpu number; device ids; cuda_visible_devices; second gpu; gpu index; gpu uuid; cuda:1; which gpu; gpu 1",
    ),
)
