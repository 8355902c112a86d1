"""More ways to ask about metrics, browsers, headers, queues, timeouts, the scheduler and the choice of a GPU."""

from __future__ import annotations

from vsrv.demo.topic import phrases

ACCESS_VOICES: dict[str, tuple[str, ...]] = {
    name: phrases(block)
    for name, block in {
        "metrics-auth": """does prometheus have to present a bearer token when it scrapes; our security audit found that
        /metrics answers without login; anonymous access to the counters; the pentest report says unauthenticated metrics
        endpoint; scrape_config with authorization credentials, what must the server be told; I don't want competitors to
        read how many tokens we sell; curl /metrics works without any key; prometheus target shows 401 unauthorized; is
        /metrics open by default; only the ops team should view the gauges and counters; basic auth for metrics; metrics
        login; metrics 401; make scraping need authorization; which scope does a key need to read the metrics; everyone in
        the office can look at our usage graphs data; grafana agent gets 403 on metrics; turn off anonymous reading of
        prometheus counters; I use vsrv in a shared lab and students open /metrics in the browser, can I forbid it; what
        must I do that not every person sees the metric; usage figures are business secrets, lock them; does the
        servicemonitor need a bearer token secret; unauthenticated monitoring endpoint; credentials for scraping; metrics
        without key, how do I permit it; metrics public or private; allow metrics only with a valid key""",
        "metrics-port": """can prometheus reach the counters on 9100 instead of the api's port; the service monitor wants a
        named port for metrics; kubernetes prometheus.io/port annotation, which number; TGI has --prometheus-port, what is
        it here; the load balancer exposes everything on {port}, metrics should be elsewhere; a dedicated listener for the
        counters; how do I make /metrics vanish from the main address; prometheus fails with x509 unknown authority when
        scraping, I want plain http; scrape without tls while clients use tls; only our management network may connect to
        the metrics socket; metrics on 9100; management port; admin port for statistics; does /metrics live on the same port
        as /v1; split monitoring and inference traffic; is there a number like node exporter's 9100 for this; separate
        exporter port; the ingress publishes /metrics to the whole world, can it listen separately; open second port {port}
        only for grafana and prometheus; bind monitoring to {port}; I would like that the metric goes on other port than the
        chat; our firewall team opens {port} for monitoring and nothing else; /metrics gives 404 on the main port; which
        port do I write under targets in prometheus.yml; scrape target port; metrics listener""",
        "prefix-cache-scope": """one system prompt for all customers, compute it just once; each api key with a cache of its
        own; two companies on one server, can either notice the other's prompts by response speed; vllm has cache_salt, what
        is there here; our privacy officer does not want a cache that several customers use together; is cached kv visible
        across tenants; cache hits only within the same key; cross tenant cache hits; ttft reveals whether somebody else
        sent this prompt; cache partitioning; every department repeats the same instructions but gets no cache hit from the
        others; may a stranger's request reuse my cached prefix; by default, with whom is a cached prompt shared; tenant,
        key or shared; a global prefix cache for a single company; all users trust each other, share everything cached;
        multi tenant cache leakage; the hit rate is low since each tenant fills its own cache; data protection of cached
        prompts; prompt cache privacy; prevent guessing of secrets via cache latency; cached prompt from one person reused
        for an other person, is this forbidden; the auditors ask if customer data can be inferred from cache timing; set
        cache visibility to key; reuse the cached beginning among all accounts; isolation level of the prompt cache""",
        "allowed-methods": """Method PUT is not allowed by Access-Control-Allow-Methods in preflight response; OPTIONS
        answers without DELETE in the list; let javascript only send GET; which verbs stand in the preflight answer; my
        single page app uses PATCH and chrome refuses; cors allow methods; vllm --allowed-methods; forbid DELETE for
        browsers; browser may GET but not POST; does the web page have the right to use PUT; http verbs for other origins;
        what is the default list of cors methods; the preflight lists too many verbs, says our security scan; limit a
        foreign website to read requests; only get and post for pages from {url}; add HEAD to what the browser may do;
        preflight method; cors DELETE; the console says method not allowed by cors policy; make the
        Access-Control-Allow-Methods line shorter; do I have to name POST for a web client; fastapi allow_methods, here;
        add_header Access-Control-Allow-Methods of nginx; which request types can a script on a site make; block all verbs
        except POST in cross site calls""",
        "allowed-headers": """Request header field x-stainless-os is not allowed by Access-Control-Allow-Headers; the openai
        js client in the browser adds x-stainless headers and cors stops it; let javascript send X-Tenant; my fetch sets a
        header X-Trace and chrome blocks it; which header names does the preflight permit; cors allow headers; Authorization
        header not permitted from a web page; content-type is blocked by the preflight; access control request headers; vllm
        --allowed-headers; fastapi allow_headers; extra header in fetch fails but curl works; only Authorization and
        Content-Type for browsers; cors header names list; add X-Api-Key to what a page may send; firefox says missing token
        in CORS header Access-Control-Allow-Headers; the site from {url} has to send its own header field; forbid unknown
        headers from scripts; what header fields can a browser app set; preflight rejects header names; our angular
        interceptor puts a header on every call and now cors error; can the web client send any header by default; the page
        wants to transmit accept-language and x-session; header whitelist for cross site scripts; allowlist of header names
        for browsers""",
        "allow-credentials": """The value of the Access-Control-Allow-Credentials header must be true; axios withCredentials
        gives a cors error; login cookie is not transmitted to the other domain; cors with wildcard origin and cookies is
        refused; may the browser attach its cookies; our single sign-on cookie must reach the server; fetch(url, credentials
        include) is blocked; cookies across domains; fastapi allow_credentials=True; vllm --allow-credentials; are cookies
        sent from {url} by default; http basic login in the browser from another site; third party cookie to the api; sso
        cookie; supportCredentials; keep me logged in while the page calls another domain; the oauth proxy in front needs
        its cookie and the page sends none; with * as the origin cookies do not work; ajax with cookies; let pages include
        their session; jquery xhrFields withCredentials; include cookie in cors request; browser omits the cookie when it
        calls the api; the page is logged in but its requests arrive without session; sending of cookies from script should
        be accepted; logged-in browser users on another domain""",
        "h11-max-incomplete-event-size": """HTTP 431 Request Header Fields Too Large because of one huge cookie; kerberos
        tickets make the Authorization header enormous; what is the limit for headers in kilobytes; nginx
        large_client_header_buffers, what is it called here; our jwt has {n} kB; the query string is thousands of characters
        long; 414 uri too long; set the header buffer to 64k; max header bytes; uvicorn --h11-max-incomplete-event-size;
        bytes of request line plus headers; allow a head of {big} bytes; the sso gateway inserts a giant token in a header;
        node's --max-http-header-size; too long url refused; protect from attackers that send endless headers; how many
        kilobytes may a cookie have; size in bytes of what comes before the body; header buffer; saml assertion in a header
        is cut with 431; the header is too big, server says no; big bearer token; reduce the memory for request heads;
        overlong header value; header bytes limit; tomcat maxHttpHeaderSize; one header of 50 kB""",
        "h11-max-header-count": """more than a hundred header fields and 431; apache LimitRequestFields, what is it here;
        each proxy on the way adds ten headers; our service mesh adds lots of small headers; how many header fields does it
        accept; vllm --h11-max-header-count; istio and envoy append many headers; {n} headers in one request; count of
        request headers, not their size; the headers are short but there are too many of them; tracing headers pile up until
        431; stop clients that send thousands of tiny headers; quantity of headers; accept two hundred header lines; fewer
        header fields per request; header fields maximum; what is the default number of headers; my gateway puts 150 headers
        on each call; allow at most {n} header fields; too much headers, each one is little; amount of header lines per
        request; is 100 headers a hard limit; http header quantity; many cookies lines as separate headers; number of fields
        in the request head""",
        "enable-request-id-headers": """does each answer carry an identifier; our tracing wants an x-request-id on every
        hop; a customer complains about one answer, how do I find it again; vllm --enable-request-id-headers; join nginx log
        and server log by id; may my client choose the id itself; openai's x-request-id header, do you return it; pass an id
        through from the gateway; tie an error message to a log line; request identifier; does it log the id that I send;
        opentelemetry trace context; what do I quote when I report a failed call; distributed tracing; look up a single
        failed request among millions; turn on request id headers; switch off the x-request-id header; the helpdesk needs a
        reference number of the call; which response header identifies the call; call id; proxy_set_header X-Request-ID;
        correlate; how find I one request again in the log; set my own uuid for a request; ticket number for every call; is
        there some reference in the reply that I can search for later""",
        "queue-timeout": """how long before a queued request is given up; 503 because the wait for a slot was too long; my
        users get an error after five minutes of waiting without a single token; leave the line after {n} s; wait at most
        {n} seconds for a free slot; unlimited waiting, never give up on queued work; nothing was generated, it only waited
        and failed; time to get a turn; queue patience; queue wait limit in seconds; default waiting time before 503; in
        busy hours calls wait ages before they start; batch clients may wait for an hour before they begin; drop what has
        waited longer than {n} seconds; admission wait; expire stale requests that never started; max queue time; someone
        who waits half a minute has left already, so discard it; triton has max_queue_delay, how long may a call wait here;
        log says the request waited too long; rather fail after {n} s in line; telephone hotline principle: after {n}
        seconds on hold hang up; time spent waiting, not time spent generating; a request should not wait more as {n} second
        before begin; does a waiting request ever expire; give queued jobs more time to get a slot; sla says the start must
        come within {n} seconds or an error; waited too long""",
        "request-timeout": """504 Gateway Timeout after two minutes; total seconds from arrival to the last token; end any
        call after {n} seconds whatever happens; one generation ran all night; hard stop for long answers by the clock;
        nginx proxy_read_timeout, do you have your own; can the client send its own deadline in a header; by default can a
        request run for ever; stop a model that babbles for minutes; overall time limit; timeouts; per request timeout;
        server side timeout; wall time per request; the app only waits {n} seconds, so the server should stop working then;
        my answer is cut off with 504 in the middle; let long generations run two hours; no time limit at all; maximum run
        time; how many seconds has one call from begin to end; TimeoutError on the whole call; cap on generation seconds; we
        bill by gpu time, so a call must end after {n} minutes; cut a call that goes on too long; gunicorn --timeout; limit
        not tokens but time; a looping model blocks the gpu for ten minutes; disable the timeout of requests""",
        "prepare-timeout": """a regex in the schema compiles for ages; chat template with an endless loop; error about
        preparation before generation began; my json schema is so complex that compiling it is aborted; tokenizer needs more
        than ten seconds for a book; time limit for jinja; rendering of {n}00 messages is aborted; compile time of a
        grammar; preprocess timeout; seconds for tokenization; what is the default for the preparing phase; a malicious
        template could spin for ever; give the tokenizer {n} seconds; the request fails before it even enters the queue
        since rendering is slow; huge enum in the schema, timeout; xgrammar compilation takes long; before the model sees
        the prompt there is a timeout; tokenising a million characters fails; bound the cpu time before inference; evil json
        schema blocks the server; stop expensive schemas early; slow cpu, the prompt encoding does not finish in time;
        template and tokenizer time; limit on preprocessing seconds; grammar build aborted; a deadline for encoding the text""",
        "max-num-queued-tokens": """ten requests of 100k tokens wait, so counting requests does not help; sum of prompt
        tokens in line; backlog in tokens; refuse new prompts when a million tokens wait; 503 although only a few requests
        wait; limit how many tokens of prompt stand in the line; cap the token backlog; tokens not yet processed; weigh the
        queue by prompt size; the queue should be measured by work and not by heads; queued prompt tokens limit; rag users
        send books and the line gets heavy; total tokens pending; waiting token budget; allow {big} tokens to wait; a
        document upload job fills the waiting line with giant prompts; max waiting tokens; TGI has max-waiting-tokens,
        something with waiting tokens here; how much prompt can be pending in sum; shed load by number of prompt tokens; how
        big is the backlog allowed to be in tokens; reject when the tokens in line exceed {big}; the token sum of all that
        is not started; too many tokens queued; queue of tokens is full; pending prompt tokens""",
        "max-num-queued-bytes": """{n} clients post base64 blobs together and the ram is gone; sum of all request bodies;
        limit the total megabytes of bodies held in memory; the frontend got OOMKilled by large posts at once; all uploads
        together may use at most {gb} GB; container memory limit 2Gi and lots of big json bodies; buffered bodies; rss of
        the web process rises with parallel posts; bytes of everything that is pending; together the bodies are too large
        though each one is fine; 503 because too many bytes are held; cap aggregate body size; host ram for incoming json;
        memory budget for request data; inflight bytes; how many megabytes of requests does it buffer; prevent a memory
        attack by thousands of medium bodies; total upload memory; pod evicted for memory when clients post at the same
        time; ram used by bodies, not by the model; maximum bytes of all waiting requests together; allow {gb} GB of pending
        bodies; queue limit in bytes; bytes waiting; aggregate payload cap; the sum of the post data should not eat my
        laptop's memory; not one body but all of them together""",
        "max-n-sequences": """n must be at most 64; openai allows n up to 128, and here; client wants {n} completions of the
        same prompt; one user sends n=500 and takes all slots; how high may n go; best of {n} sampling; self consistency
        with 100 samples; sample the same question many times in one call; limit choices; n too big; 400 for the n
        parameter; forbid n above one; generate several candidates in a single call; parameter n; the choices array, how
        long can it be; students ask for fifty variations of a poem with one request; maximum of parallel samples for a
        prompt; only one answer per call; pass@100 evaluation needs n=100; number of alternative answers; rlhf rollouts with
        many samples per prompt; how much choices can I have in one answer; cap n at {n}; ten versions of a slogan from one
        request; vllm max_n_sequences; num_return_sequences; majority voting over {n} samples; n in the request body is
        refused""",
        "max-completion-prompts": """prompt as array of strings, how many elements; send {n} texts in one /v1/completions
        post; lm-eval sends batches of prompts in a single request; the prompt array is too long; 400 too many prompts;
        batch size within a completions call; list of prompts limit; one post with a thousand prompts; openai legacy
        completions with several prompts; how many strings may the prompt field hold; a client blocks the server with an
        array of ten thousand prompts; allow bigger batches per completions call; prompt: ["a", "b", "c"]; prompts in a json
        list; only one prompt per request; an evaluation script batches 256 prompts, it is refused; different prompts
        together in one http request; array of token id lists as prompt; limit batch of prompts to {n}; maximum elements in
        the prompt list; multi prompt request; can I put many question in one completion request; how many prompts per post;
        batched prompts; text completion with a list of inputs; default limit for the prompt array""",
        "long-prefill-token-threshold": """while somebody's 100k document is read, all others stutter; per step portion of a
        huge prompt; one prompt should get at most {n} tokens of each step; prefill slice of a big prompt; vllm
        --long-prefill-token-threshold; fairness among prompts in the batch; a pdf of 300 pages starves the short questions;
        cap prefill of a single request per iteration; process a novel in small bites per step; short chats have bad ttft
        when a long prompt comes; limit prefill share; how many tokens of a single sequence are prefilled in an iteration;
        giant prompt eats the whole budget of the step; cut very long prompts in smaller pieces per step; short questions
        should overtake long documents; partial prefill; chunk limit per request; long prompts first hog the batch; leave
        room in the step for small prompts; head of line blocking by prefill; threshold for long prompts; what counts as a
        long prompt; rag prompts slow the first token of others; smaller prefill bites for one request; max long partial
        prefills; make a big document slower so that small chat is quick""",
        "async-scheduling": """gpu utilisation drops to zero for a moment after each token; the python overhead between
        decode steps; vllm --async-scheduling; run the scheduler in parallel with the gpu; nsight shows bubbles between
        kernels; is the scheduler asynchronous by default; prepare batch n+1 during batch n; no overlap please, I want to
        debug; overlap detokenization with compute; sglang has an overlap scheduler; synchronous steps for debugging; zero
        overhead scheduler; cpu bound scheduling; does the gpu idle while the results are processed; pipelined scheduling;
        async engine steps; hide host latency; gpu load has gaps as the cpu is slow; scheduling ahead one step; is
        asynchronous scheduling on for the cpu; switch back to synchronous scheduling; double buffering of steps; step
        bubbles; host overhead; --no-async-scheduling; next step planned while the last still runs; reduce the pause among
        two decode steps""",
        "num-gpu-blocks-override": """vllm --num-gpu-blocks-override; force 500 blocks; I want a tiny kv cache to provoke
        preemption; ignore the profiled block count; how can I fix the amount of pages in the kv pool; set blocks by number
        and not by memory; exact count of kv pages; reproduce a run with the same number of cache blocks; the log says
        {n}000 gpu blocks, I want another figure; number of paged attention blocks; cache with only {n} blocks; kv pool
        pages; hardcode the block number; unit test needs a small block pool; how many blocks does the cache have; same
        number of blocks on two machines; not the size of a block but how many; benchmark with an identical quantity of
        blocks; blocks total; artificially small cache; # GPU blocks; the automatic calculation of blocks should be
        overruled; SGLang max-total-tokens, as a block count; choose by hand how much blocks; simulate a full cache with few
        blocks; manual block pool size""",
        "disable-sliding-window": """gemma mixes local and global layers, I want only full attention; vllm
        --disable-sliding-window; model forgets what stood more than 4096 tokens ago; sliding_window in config.json, ignore
        it; limit the context to the size of the sliding window; mistral 7b v0.1 with window 4096; interleaved attention
        without windows; no swa please; llama.cpp --swa-full; gpt-oss has windowed layers, can I do without; some layers
        look only at the last tokens; is the sliding window active by default; make all layers look at the whole sequence;
        local layers; full attention everywhere; stop local attention; rolling window; tokens beyond the attention window
        are lost; the model does not see the beginning of the conversation because of its window; keep sequences as short as
        the window; qwen2 use_sliding_window; turn window attention to off; attention only over recent tokens, disable; does
        gemma's sliding attention work; without window; swa disable; windowed layers give trouble""",
        "device-ids": """the desktop uses card 0, let the model use card 1; two h100 in the box, I would like the second;
        docker --gpus device={n}, what is it here; main-gpu of llama.cpp; --gpu-id; GPU-8f3a uuid; nvidia-smi shows it on
        the wrong card; colleague trains on the first gpu, I must not disturb him; select card by number; it grabbed the
        card with the small memory; use the 4090 and not the 1060; cuda device 1; index of the card; choose gpu; which of
        the four gpus will be taken; MIG slice by uuid; two instances, each with a card of its own; cuda:0 is occupied;
        second card; ordinal of the gpu; I have a big and a small nvidia, take the big; in a shared server gpu {n} belongs
        to us; hide the other gpus from it; out of memory since another job sits on gpu 0, move to an other;
        HIP_VISIBLE_DEVICES or CUDA_VISIBLE_DEVICES; my laptop has an egpu, use that one; assign cards to servers; does the
        number agree with nvidia-smi""",
    }.items()
}
