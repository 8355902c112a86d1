"""Still more questions about the finer options, the other commands and what a server can do, in plainer words; see voices_service.py."""

from __future__ import annotations

from vsrv.demo.topic import phrases

MORE_VOICES: dict[str, tuple[str, ...]] = {
    name: phrases(block)
    for name, block in {
        "ssl-keyfile-password": """my key.pem is locked with a secret; where do I enter the pass phrase of the https key; supply the
        secret that opens the private key; the server cannot open the key because it is encrypted; key protected by passphrase""",
        "ssl-cert-reqs": """is showing a client certificate voluntary; I want to insist on client certificates; nobody should connect
        without a client certificate; accept a client certificate if there is one; strict or lenient mtls""",
        "ssl-ciphers": """use only strong encryption algorithms; remove insecure suites; limit tls to certain algorithms; our security
        guideline names permitted suites; cipher string for openssl""",
        "enable-ssl-refresh": """do I need to bounce the server after certbot ran; new certificate on disk, old one still used; take over a
        changed certificate on the fly; certificates that are exchanged at run time; live reload of tls certificates""",
        "forwarded-allow-ips": """the true sender of a request behind a proxy; record the address of the end user; believe what my
        reverse proxy says about the client; which proxy may tell the client's address; get real addresses in the access log""",
        "api-key-file": """limit how often somebody may call; a maximum number of requests each minute for a user; one heavy user spoils
        it for everybody; fair sharing among customers; give each department an allowance; keep secrets off the command line;
        store credentials in a file; where do I configure tenants; key with a limited budget; separate accounts; restrict a key to
        embeddings; cap concurrent requests of one customer; limits by user; slow down a greedy client""",
        "metrics-auth": """outsiders can see my statistics; make the metrics page private; monitoring data only with a credential; guard the
        prometheus endpoint; who can see my metrics""",
        "metrics-port": """keep the statistics on an internal listener; different tcp port for monitoring; prometheus on its own listener;
        move monitoring away from the public address; offer metrics elsewhere""",
        "prefix-cache-scope": """may customers profit from each other's cached prompts; keep what is cached private to each customer; one
        common prompt cache for the whole server; can someone detect that a prompt was sent before; who benefits from cached
        prompts; cache reuse between different keys; share kv between tenants""",
        "allow-credentials": "permit cookies from my website; browser login cookies with cross origin calls; credentialed requests",
        "allowed-methods": "restrict web pages to certain http verbs; which verbs are open to browsers; permit DELETE from web pages",
        "allowed-headers": "web page wants to send an extra header; permit extra request headers from browsers; browser header blocked",
        "h11-max-incomplete-event-size": "request line too long; header block too big; my headers are huge; raise the limit of header bytes",
        "h11-max-header-count": "so many header fields; raise the number of header fields; limit on header fields",
        "enable-request-id-headers": "identify a single call; unique id of a call; id to quote in a support ticket; follow one request",
        "queue-timeout": """do not let people wait longer than {n} seconds for their turn; stop waiting after a while; how long do requests
        stay in line before an error; waiting too long should end in an error; fail early instead of queueing for ever; maximum time
        in line""",
        "request-timeout": """no single request may run more than {n} seconds; a limit on how long an answer may take; cancel long running
        requests; a request should be stopped after a while; upper limit on total processing time; time budget of a call; answers
        that never stop""",
        "prepare-timeout": "time allowed for rendering the template; slow tokenization aborted; rendering messages takes too long",
        "max-num-queued-tokens": "too much prompt text is waiting; limit how much text waits; waiting work measured in tokens",
        "max-num-queued-bytes": "incoming data fills the memory; memory used by uploads that wait; limit buffered bytes of all requests",
        "max-n-sequences": "how many variants may a client ask for; several completions of one prompt; restrict parallel samples; too many variants",
        "max-completion-prompts": "list with hundreds of prompts; several prompts at a time in one post; cap prompts per post",
        "long-prefill-token-threshold": "a long document should not hog the step; small requests behind a large one; slice huge prompts thinner",
        "async-scheduling": "work ahead while the gpu computes; hide scheduling time; prepare the following step early",
        "num-gpu-blocks-override": "dictate the block count; fewer cache blocks for an experiment; number of pages in the cache",
        "disable-sliding-window": "attend to everything; no local window; ignore the window of the model; each layer sees all tokens",
        "device-ids": """which card does it run on; pick one card out of several; leave gpu 0 to others; put it on the last gpu; assign a
        specific gpu; the model should go to the other card; select a gpu by number; the first card is taken, use another""",
        "tool-call-parser": """it prints the function call as json text; calls are not recognised as calls; tell it how the model writes its
        calls; wrong format of function calls; specify the call syntax of my model; model with unusual tool format; choose how
        functions are extracted from the text; disable tools altogether""",
        "enable-auto-tool-choice": "copy of my vllm flags: automatic tool choice; is the automatic choice of tools a flag here; vllm auto tool flag",
        "exclude-tools-when-tool-choice-none": "drop the tool list from the prompt if tools are forbidden; no tool descriptions when none is set",
        "tool-strict-level": "tool names must be right always; never call an unknown function; arguments always as in the schema",
        "reasoning-parser": """I see the model's inner monologue in the answer; cut the thoughts out of the reply; have the thoughts delivered
        separately; the answer contains <think>; where do thoughts go; do not separate thoughts; split thought and answer; which
        marks surround the thoughts; get the raw text with thoughts; my app wants reasoning in an extra field""",
        "structured-outputs-config": "smaller json without blanks for everybody; all schemas closed by default; server default for json output",
        "chat-template-content-format": "what does the template get as content; lists instead of strings for the template",
        "response-role": "label answers with a different role; who is the speaker of the answer",
        "enable-prompt-tokens-details": "did the cache help this request; show the cached part of a prompt; how many tokens were reused",
        "enable-force-include-usage": "know the token consumption of streaming calls; add up tokens for streams; usage numbers in each stream",
        "sse-keep-alive-interval": """connection drops while nothing is sent; long silence before the first word; intermediate proxy closes the
        quiet stream; send something now and then in a stream; stream dies when the model takes long""",
        "return-tokens-as-token-ids": "numbers of tokens rather than strings; ids for each token in the result",
        "runner": """my model should produce vectors; serve a text model as an embedder; it generates text but I need embeddings; switch between
        text and vectors; use it as an encoder""",
        "pooler-config": "how are token vectors combined; mean instead of the last token; length of vectors not one; pooling method",
        "hf-overrides": """correct a mistake in the model's config; alter the architecture values; other rope base; change a number of the
        model configuration at the start; stretch the context with rope""",
        "any-model-name": """programs send different model names; ignore which model is asked for; accept whatever is in the model field; model
        not found for unknown names, I want none of that; clients with a hard-wired model; never complain about the name""",
        "trust-remote-code": "execute python from the checkpoint; the repo has its own code; allow foreign code; model with custom python",
        "engine-stall-timeout": """no token for a minute and nothing happens; it got stuck; detect when it no longer makes progress; how does it
        deal with a hang; the gpu does not answer any more; restart if it stands still""",
        "engine-load-timeout": "loading is slow and gets cancelled; more patience at the start; reading the model takes very long",
        "engine-max-restarts": """how many times will it try again after crashes; the worker dies; do not come back after a crash; give up after
        several crashes; endless crash loop; come back to life after a crash""",
        "log-prompts": """read along what people ask; the log should contain the questions; see the questions in the log; record what is sent to
        the model; look at the text that arrives""",
        "max-log-len": "show longer pieces of prompts in the log; only part of the question is in the log; length of the excerpt",
        "disable-access-log-for-endpoints": """too many lines from health probes; do not log certain urls; suppress log lines for some routes; my
        monitoring spams the log; hide a url from the log""",
        "disable-log-stats": "do not count anything; no throughput statistics; without engine statistics; get rid of stats",
        "log-stats-interval": "status line less frequently; how often is the speed written to the log; regular report of the load",
        "enable-tokenizer-info-endpoint": "evaluation harness needs the tokenizer; publish the tokenizer's settings; template over the api",
        "disable-fastapi-docs": "do not publish the description of the api; no interactive docs; block openapi",
        "fingerprint-mode": "hide details in the fingerprint; version visible in answers; fingerprint off; what is the fp in answers",
        "fingerprint-value": "write my own label into the fingerprint; custom label of the deployment in answers",
        "setup": """the machine lacks pytorch; nothing is installed on this host; make it run on a bare machine; prepare a computer for the
        first start; install without access to the net; how do I get everything it needs; packages from a local folder; it
        complains about missing modules; bootstrap a new machine; install requirements; where does it put its environment""",
        "check": """try my settings without really starting; is there enough memory for this model; find out in advance what is wrong; will the
        model fit; verify a toml before the restart; how large may the model be; test the settings; do I have enough vram; say
        what is wrong with my flags; predict memory use; preview of the start""",
        "chat": """type questions in a terminal window; converse without any gui; a command line program to talk with the model; quick talk in
        the console; question on the command line; give it a file and a question in bash; simple client in the shell""",
        "complete": "have a sentence continued in the shell; finish my text on the command line; go on writing from a start in bash",
        "run-batch": """thousands of prompts from a file; answer every line of a file; overnight processing of a big list; bulk requests without
        a client program; continue an aborted bulk run; large amounts of requests from disk; process a dataset; file in, file out""",
        "keys": """get a new key for someone; withdraw access from a person; a secret has leaked; exchange an old key for a new one; overview of
        the keys; generate credentials for a customer; a key that only lasts {n} days; delete a key; add a user; remove a user""",
        "cert": """produce a test certificate; https on my own machine without buying a certificate; where do I get the pem files; make the
        files for tls; own certificate authority for testing; certificate for an intranet host; no certificate yet""",
        "bench": """find out the speed; test how many users it can take; how many words per second; response time under load; performance
        figures; time until the first word; test the limits of my server; measure it; speed comparison""",
        "completion": "shell should suggest options; tab key for flags; complete commands in my shell",
        "docs": "offline manual; read the handbook; print a sample configuration; complete list of options on paper",
        "tools": """let the model run my functions; the model should look up the weather by itself; connect external functions; give it access to
        my database through a function; agents; can it call my code; plug in functions; automatic function use; let the assistant
        act""",
        "structured": """I only want json back; make sure the reply is valid json; answer as an object with given fields; the reply has to fit a
        pattern; restrict the reply to a few options; machine readable answers; extract fields into json; force a format; the
        reply must parse; output format guarantee; fixed answer format; schema for the answer""",
        "embeddings": """turn texts into numbers; similarity search; find similar documents; vectors for a vector store; order documents by
        relevance; which documents fit a question; semantic index; sentence similarity; serve minilm; relevance scores""",
        "messages": """anthropic's coding agent with my server; use claude's tool with a local model; programs written for anthropic; the api
        of anthropic; claude desktop agent against vsrv; replace anthropic's cloud""",
        "responses": """openai's coding agent with my server; the successor of chat completions; new openai endpoint; programs that use
        responses; keep a conversation on the server; codex against a local server""",
        "systemd": """have it started by the operating system; run permanently in the background; come up after a power failure; survive logging
        out; install it as a linux service; start together with the machine; background service; keep it always on; automatic start""",
        "balancing": """several copies behind one address; split the traffic over two machines; grow beyond one machine; one of two servers
        fails; same user to the same server; proxy in front of multiple servers; more capacity with more servers; one url for all
        instances; failure of a server without errors for users""",
        "zipapp": """everything in one file; transport it on a usb stick; a file that I can just run; create the distributable; package it;
        copy a single file to a server and run it; make the release; one python file; portable build""",
        "absent": "adapters on top of a base model; show it a photo; faster by guessing tokens ahead; speech to text; pictures in prompts",
    }.items()
}
