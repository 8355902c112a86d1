"""What the demo model knows about vsrv's other commands and about what a server can do for its clients."""

from __future__ import annotations

from vsrv.demo.topic import talk

COMMANDS = (
    talk(
        "setup",
        """vsrv setup makes a private environment with torch and the other packages for the one-file archive: --cpu or
        --cuda, without network --wheels DIR. Example: python3 vsrv.pyz setup --cuda""",
        goals="""install what the archive needs; install torch for vsrv.pyz; make the private environment; prepare a new host for
        vsrv.pyz; install the dependencies; set it up without internet; install from a folder of wheels; install the cuda
        packages; remove old environments; list the environments; get the missing packages; install it on an air gapped
        machine; prepare the python packages""",
        nouns="""vsrv setup; the setup command; the private environment; the installation of torch; air gapped installation;
        offline installation; the missing packages; the virtual environment of the archive; the lock file of packages; the
        wheels folder""",
        problems="""it says that torch is missing; the archive does not start because packages are missing; the host has no
        internet; No module named torch; numba is not installed on the host; the machine is air gapped; python lacks the
        packages""",
        asks="""what does vsrv setup do; how do I install the dependencies; how do I install it offline; what is setup for; where
        do the packages come from; how do I set up vsrv.pyz on a host; which command makes the environment; setup --cpu or
        --cuda; how do I delete old environments""",
        keys="""setup; vsrv setup; install; installation; dependencies; offline; air gapped; wheels; torch missing; private
        environment; venv; missing packages""",
    ),
    talk(
        "check",
        """vsrv check MODEL says what would keep the server from starting, what fits into memory and which flag mends what does
        not; it loads no weights. Example: vsrv check ./Qwen3-8B""",
        goals="""test the configuration without starting; see whether the model fits into memory; do a dry run; validate my
        options; check the configuration file; find out how much memory a model needs; verify the setup before a restart; know
        beforehand whether it would start; compute the memory budget; test the config like nginx -t; see how many tokens fit""",
        nouns="""vsrv check; the check command; a dry run; the memory budget; a configuration test; the memory needs of a model;
        a preflight check; the validation of the configuration; how much memory a model needs""",
        problems="""I do not know whether the model fits on my card; I want to test my settings before I restart; I am not sure
        the config is valid; before I deploy I want to know whether it starts""",
        asks="""does this model fit on my gpu; how much memory does {model} need; will {model} fit; is my configuration valid;
        what does vsrv check do; is there something like nginx -t; how do I test my options without starting; can I try the
        config first""",
        keys="check; vsrv check; dry run; memory budget; validate config; does it fit; test config; fits memory",
    ),
    talk(
        "chat",
        """vsrv chat talks with a server in the terminal: streaming, history, /help lists commands. Example: vsrv chat
        --url http://127.0.0.1:8000""",
        goals="""chat in the terminal; talk to the model from the command line; have a conversation in the shell; ask a question
        from a script; pipe a file to the model; send standard input to the model; use an interactive client; chat without a
        browser; try the model from the console; review a git diff with the model""",
        nouns="""vsrv chat; the chat command; the terminal client; the command line client; an interactive chat; a chat in the
        terminal; the console chat; the repl""",
        problems="""I do not want to write curl commands; I have no chat program; I want to type questions in the terminal; curl is
        cumbersome for chatting""",
        asks="""is there a terminal client; how do I chat from the shell; can I talk to it in the terminal; what does vsrv chat do;
        how do I chat with the server without a gui; can I pipe text into it""",
        keys="vsrv chat; terminal chat; terminal client; cli client; repl; interactive; console; shell client; pipe",
    ),
    talk(
        "complete",
        """vsrv complete writes what a model makes of a beginning, in the terminal. Example: vsrv complete "Once upon a
        time" --max-tokens 40""",
        goals="""complete a text in the terminal; continue a text from the command line; let the model go on with a beginning;
        get a plain completion in the shell; try a base model from the terminal; continue a story from the console""",
        nouns="""vsrv complete; the complete command; text completion in the terminal; a plain completion in the shell; the
        continuation of a text""",
        problems="my base model cannot chat, I only want it to continue a text in the terminal; I want to see how the model continues a sentence",
        asks="""what does vsrv complete do; how do I complete a text from the shell; can I continue a text in the terminal; which
        command continues a beginning""",
        keys="vsrv complete; complete; text completion; continue text; completion terminal; base model terminal",
    ),
    talk(
        "run-batch",
        """vsrv run-batch sends a file of requests and writes a file of results; the same command goes on where it ended.
        Example: vsrv run-batch MODEL -i in.jsonl -o out.jsonl""",
        goals="""process a file of requests; run a batch job; send thousands of prompts from a file; use openai batch files; work
        through a jsonl file; do offline inference; resume an interrupted batch; evaluate a data set overnight; run many
        prompts at night; label a whole data set""",
        nouns="""vsrv run-batch; batch files; batch processing; the run-batch command; offline inference; a batch job; the openai
        batch format; jsonl input; bulk processing; the batch api""",
        problems="""I have {n} thousand prompts in a jsonl file; I want to process a file and need no server; my batch was
        interrupted and should go on; I need answers for a whole data set""",
        asks="""can it process a file of prompts; is there a batch mode; how do I run openai batch files; can a batch be resumed;
        what does vsrv run-batch do; how do I do offline inference; does it support the batch format""",
        keys="run-batch; batch; batch file; jsonl; offline inference; batch job; bulk; batch mode; vsrv run-batch; batch api",
    ),
    talk(
        "keys",
        """vsrv keys makes, lists, revokes and rotates the keys of a key file. Example: vsrv keys new --api-key-file
        keys.toml --tenant acme --expires 90d""",
        goals="""make a new key; create an api key; generate a key; revoke a key; rotate a key; rotate keys; list the keys; make a
        key that expires in {n} days; delete a customer's key; replace a leaked key; issue a key for a tenant; bind a key to a
        client certificate; withdraw a key; hand out a key to a new customer; see which keys exist""",
        nouns="""vsrv keys; the keys command; key rotation; key creation; a new key; the revocation of a key; the list of keys;
        key management; a fresh api key; the expiry of a key""",
        problems="""a key has leaked; a customer left and his key must go; I need a key for a new team; a key was published on
        github by mistake; a new user needs a key""",
        asks="""how do I create a key; how do I revoke a key; how do I rotate a key; which command makes keys; what does vsrv keys
        do; how do I list all keys; how do I make a key for a tenant; can the server generate keys; how do I make a key expire""",
        keys="""vsrv keys; create key; new key; generate key; revoke; rotate key; key rotation; list keys; leaked key; key
        management; issue key""",
    ),
    talk(
        "cert",
        """vsrv cert makes a certificate authority and a certificate signed by it, for tests and closed networks. Then:
        vsrv serve --ssl-certfile certs/server.pem --ssl-keyfile certs/server.key""",
        goals="""make a certificate; create a self signed certificate; generate a test certificate; make a development
        certificate; create a certificate authority; get a certificate for localhost; make a client certificate; issue a
        certificate for my internal host; create certs without openssl; try https on my laptop""",
        nouns="""vsrv cert; the cert command; a test certificate; a development certificate; a certificate for localhost; an
        authority of my own; a self made certificate; certificate generation; the creation of a certificate""",
        problems="""I have no certificate; I need a certificate for testing; I want https in a closed network and have no
        certificate; openssl is too complicated for me""",
        asks="""how do I make a certificate; can vsrv make certificates; what does vsrv cert do; where do I get a test certificate;
        how do I generate a certificate; which command creates a certificate; how do I create a client certificate""",
        keys="""vsrv cert; make certificate; generate certificate; create cert; test certificate; localhost certificate;
        development certificate; own ca; self made cert""",
    ),
    talk(
        "bench",
        """vsrv bench measures a server: time to first token, latency between tokens, tokens per second. Example: vsrv bench
        --url http://127.0.0.1:8000 --concurrency 8 --num-requests 32""",
        goals="""measure the speed; benchmark the server; find out how many tokens per second it makes; run a load test; measure
        the latency; measure the time to first token; compare the throughput of two servers; do a performance test; stress the
        server; see how fast it is""",
        nouns="""vsrv bench; the bench command; the benchmark; the speed of the server; a load test; the throughput; the time to
        first token; ttft; the latency between tokens; performance measurement; a stress test""",
        problems="""I do not know how fast my server is; I want figures for tokens per second; I must compare vsrv with another
        server; I need to know the latency under load""",
        asks="""how fast is it; how do I benchmark it; how many tokens per second does it make; what does vsrv bench do; is there a
        load test; how do I measure latency; how do I measure ttft; which command measures the speed""",
        keys="""bench; benchmark; vsrv bench; speed; load test; tokens per second; ttft; latency; performance test; throughput
        test; measure""",
    ),
    talk(
        "completion",
        "vsrv completion bash (or zsh, fish) prints a script that completes commands and flags with the tab key.",
        weight=0.6,
        goals="""complete flags with the tab key; turn on tab completion; install shell completion; have the shell complete
        vsrv's options; get bash completion""",
        nouns="vsrv completion; tab completion; shell completion; bash completion; zsh completion; fish completion; the completion script",
        problems="pressing tab does not complete the flags; my shell does not know vsrv's options",
        asks="is there bash completion; how do I get tab completion; does it complete flags in zsh; what does vsrv completion do",
        keys="tab completion; bash completion; zsh; fish; shell completion; autocomplete; vsrv completion",
    ),
    talk(
        "docs",
        "vsrv docs vsrv.1 | man -l - shows the manual page, vsrv docs markdown the reference of all options.",
        weight=0.6,
        goals="""read the manual page; print the reference of all options; see the man page; get the option reference as markdown;
        print an example configuration; print the systemd unit""",
        nouns="the manual page; the man page; vsrv docs; the option reference; the reference manual; an example configuration",
        asks="is there a man page; where is the manual page; what does vsrv docs do; how do I print the reference",
        keys="man page; manual page; vsrv docs; reference; manpage; man vsrv; example.toml",
    ),
    talk(
        "tools",
        """Requests with "tools" work without a flag where the model's chat template shows how it calls them: tool calls and
        tool_choice as at OpenAI. Another format: --tool-call-parser""",
        weight=1.3,
        goals="""use tool calling; call functions; use function calling; send tools in a request; let the model call my function;
        build an agent with tools; force a tool call; require a certain function; use tool_choice; call several tools in
        parallel; give the model tools; let it use my weather function""",
        nouns="""tool calling; function calling; tools; tool calls; tool_choice; functions; parallel tool calls; strict tools; the
        tools field; agent tools; required tool calls""",
        problems="""my agent needs tool calling; langchain sends tools; the model should call a function; I want the model to pick
        a function and its arguments""",
        asks="""does it support tools; can the model call functions; is function calling supported; does tool calling work; how do
        I use tools; are parallel tool calls possible; does tool_choice required work; do I need a flag for tools""",
        keys="""tools; tool calling; function calling; tool calls; tool_choice; functions; function call; agents; parallel tool
        calls; tool use""",
    ),
    talk(
        "structured",
        """Structured outputs: response_format json_object or json_schema in the request, or structured_outputs with a
        regex, choice or grammar; the answer then keeps to it. No flag is needed.""",
        weight=1.3,
        goals="""get json as the answer; force json output; make the answer follow a json schema; use structured outputs; use
        response_format; constrain the answer to a regex; choose from a list of answers; use guided decoding; guarantee valid
        json; use a grammar; parse answers into pydantic objects; use json mode; limit the answer to yes or no""",
        nouns="""structured outputs; json mode; json schema; response_format; guided decoding; constrained decoding; guided json;
        a regex for the answer; a grammar for the answer; valid json answers; json answers; guided choice; schema output""",
        problems="""the model writes invalid json; I need answers as json; my program cannot parse the answer; the answer must match
        a schema; the model adds text around the json; I need one of three words as answer""",
        asks="""does it support structured outputs; can it answer in json; is there a json mode; how do I use a json schema; can
        the answer follow a regex; does guided decoding work; how do I get valid json; is response_format supported""",
        keys="""structured outputs; json schema; json mode; response_format; guided decoding; guided json; regex; grammar; valid
        json; constrained; pydantic; json output""",
    ),
    talk(
        "embeddings",
        """Serve an embedding model for /v1/embeddings, or a cross-encoder for /v1/rerank and /v1/score. Example: vsrv serve
        sentence-transformers/all-MiniLM-L6-v2. A chat model makes embeddings with --runner pooling.""",
        weight=1.3,
        goals="""make embeddings; get vectors for texts; rerank documents; score pairs of texts; serve an embedding model; run a
        cross encoder; use it for semantic search; build a rag index; use bge; serve a reranker; compute the similarity of
        texts; embed my documents; use sentence transformers""",
        nouns="""embeddings; /v1/embeddings; reranking; /v1/rerank; the score endpoint; text vectors; embedding models; a reranker;
        cross encoders; sentence transformers; bge models; semantic search; vector search""",
        problems="""my rag pipeline needs embeddings; I need vectors for my documents; my search results should be reranked; I need
        an embedding server""",
        asks="""does it make embeddings; can it rerank; is there an embeddings endpoint; which embedding models work; how do I
        serve a reranker; how do I get vectors; does it run bge; can I use it for rag; does it support bert models""",
        keys="""embeddings; embedding; rerank; reranker; vectors; score; cross encoder; bge; sentence transformers; rag; bert;
        similarity; semantic search; e5""",
    ),
    talk(
        "messages",
        """Claude Code and Anthropic's clients use POST /v1/messages: set ANTHROPIC_BASE_URL=http://127.0.0.1:8000 and
        ANTHROPIC_AUTH_TOKEN to your key.""",
        weight=1.2,
        goals="""use claude code with my model; connect claude code; use the anthropic sdk; run claude code locally; speak
        anthropic's dialect; call the messages api; count tokens as at anthropic; point claude at vsrv; use an anthropic
        client; use my own model in claude code""",
        nouns="""claude code; /v1/messages; the messages api; anthropic's api; the anthropic sdk; the anthropic client;
        count_tokens; ANTHROPIC_BASE_URL; claude; the anthropic dialect""",
        problems="""my program only speaks anthropic's api; claude code should use my own server; I have the anthropic library""",
        asks="""does claude code work; can I use the anthropic sdk; is there a messages endpoint; how do I connect claude code to
        vsrv; does it support the anthropic api; what do I put in ANTHROPIC_BASE_URL""",
        keys="""claude code; claude; anthropic; messages; /v1/messages; anthropic sdk; ANTHROPIC_BASE_URL; messages api; count_tokens""",
    ),
    talk(
        "responses",
        """Codex and OpenAI's newer clients use POST /v1/responses; it is stateless, so store and previous_response_id are
        refused. For Codex set base_url and wire_api = "responses" in ~/.codex/config.toml.""",
        weight=1.2,
        goals="""use codex with my model; connect codex; use the responses api; run codex locally; call client.responses.create;
        use openai's agents sdk; point codex at vsrv; configure codex for a local model; use my own model in codex""",
        nouns="""codex; /v1/responses; the responses api; openai codex; the codex cli; previous_response_id; the agents sdk;
        wire_api; the newer openai api; codex config.toml""",
        problems="""codex should use my own server; my program calls the responses api; previous_response_id is refused; store true
        is refused""",
        asks="""does codex work; is there a responses endpoint; how do I connect codex to vsrv; does it support the responses api;
        are responses stored; what do I write in codex's config""",
        keys="codex; responses; /v1/responses; responses api; codex cli; previous_response_id; agents sdk; wire_api; openai codex",
    ),
    talk(
        "systemd",
        """Use the systemd unit: vsrv docs vsrv@.service prints it, the settings go to /etc/vsrv/NAME.toml; then systemctl
        enable --now vsrv@NAME""",
        weight=1.2,
        goals="""run it as a service; start it at boot; run vsrv under systemd; install the systemd unit; restart it automatically
        when it dies; run it in the background as a service; use systemctl; use socket activation; keep it running after
        logout; run it as a daemon; start the server with the machine; restart without losing connections""",
        nouns="""the systemd unit; systemd; the unit file; the service file; socket activation; vsrv@.service; systemctl; a system
        service; autostart; the systemd service; a start at boot""",
        problems="""it stops when I log out; after a reboot the server is not running; I start it by hand after each boot; I need a
        unit file; it should come back by itself after a power cut""",
        asks="""is there a systemd unit; how do I run it as a service; how do I start it at boot; how do I use systemctl with it;
        where is the unit file; does it support socket activation; can systemd watch it; how do I install it as a service""",
        keys="""systemd; service; unit; unit file; systemctl; boot; autostart; daemon; socket activation; vsrv@.service; service
        file; journald""",
    ),
    talk(
        "balancing",
        """Start several instances and put nginx or HAProxy in front: hash X-Session-Id, check /readyz, retry on 503. The
        README has tested files for nginx and HAProxy.""",
        weight=1.2,
        goals="""run several instances; balance the load over several servers; put haproxy in front; use nginx as load balancer for
        several instances; scale out; use more than one machine; distribute users over instances; keep a session on one
        instance; survive the death of one instance; have high availability; add a second server; scale horizontally""",
        nouns="""load balancing; several instances; haproxy; the nginx upstream; high availability; horizontal scaling; session
        affinity; sticky sessions; failover; an upstream of two servers; the haproxy configuration; a cluster; replicas""",
        problems="""one server is not enough; one instance died and its users got errors; I have {n} machines and want one address;
        nginx buffers the stream; a single instance cannot take the load""",
        asks="""how do I run it behind haproxy; how do I balance several servers; can I scale out; what is the nginx configuration
        for two instances; how do I get sticky sessions; does it run on several machines; how do I get failover; is there an
        example for nginx""",
        keys="""load balancing; load balancer; haproxy; several instances; nginx upstream; scale; high availability; failover;
        sticky session; session affinity; replicas; cluster; ha""",
    ),
    talk(
        "zipapp",
        """python3 build_zipapp.py makes the one-file archive dist/vsrv.pyz; copy it to a host and run python3 vsrv.pyz
        serve MODEL""",
        weight=1.2,
        goals="""build the one file archive; make a single file of it; build vsrv.pyz; copy the server to a host as one file;
        deploy it with scp; make a zipapp; pack vsrv into one file; build a release; put precompiled kernels into the archive;
        build a wheel; distribute it as one file""",
        nouns="""the one-file archive; vsrv.pyz; the zipapp; the pyz file; the single file; build_zipapp.py; the archive; the sbom;
        a single file deployment; the release file; cubins in the archive""",
        problems="""I want to copy one file to the server; pip is not allowed on my hosts; I need a single file to deploy; I do not
        want to clone the repository on each host""",
        asks="""how do I build the archive; can vsrv be one file; how do I make the pyz; is there a single file version; how do I
        build vsrv.pyz; what does build_zipapp.py do; where is the sbom; how do I deploy it with scp""",
        keys="""pyz; zipapp; one file; single file; archive; build; build_zipapp; vsrv.pyz; scp; sbom; cubins; wheel build""",
    ),
    talk(
        "absent",
        """That is not in this version: LoRA adapters, speculative decoding, images and sound are refused with the reason.""",
        weight=0.8,
        goals="""load a lora adapter; use lora; use speculative decoding; send images to the model; use a draft model; serve a
        vision model; transcribe audio with the server; use a multimodal model""",
        nouns="lora; lora adapters; speculative decoding; image input; vision models; multimodal models; a draft model; audio input",
        problems="my lora adapter does not load; my request with an image is refused; image_url is refused",
        asks="""does it support lora; is speculative decoding supported; can it read images; does it take image_url; can I serve a
        vision model; is there multimodal support; are lora modules supported""",
        keys="lora; speculative decoding; multimodal; vision; image_url; draft model; adapters; peft",
    ),
)
