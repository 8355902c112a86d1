"""Questions about the last options of chats, the other commands and what a server can do, in voices not yet heard."""

from __future__ import annotations

from vsrv.demo.topic import phrases

COMMAND_VOICES: dict[str, tuple[str, ...]] = {
    name: phrases(block)
    for name, block in {
        "sse-keep-alive-interval": """nginx gives 504 gateway timeout during a long prefill although the stream is open;
        upstream timed out while reading an event stream; the customer's firewall kills connections on which no bytes flow;
        empty lines starting with : arrive between my data lines; json.loads fails on ": keep-alive"; how often is a ping sent
        while the answer is still awaited; send a dummy byte every {n} seconds so that nobody hangs up; on my phone the
        streamed reply breaks before anything appears; what interval is sensible behind aws alb with a 60 second idle limit;
        make the streaming chatty enough for our load balancer; suppress the ping lines, my sdk cannot deal with them; no
        comments in event-stream please; EventSource reconnects all the time because it hears nothing; stream ping 0;
        proxy_read_timeout and slow first token; lift the pause between two heartbeats; net::ERR_INCOMPLETE_CHUNKED_ENCODING
        while the model is still reading my prompt; the gateway thinks that the stream is dead; what are those odd colon rows
        I see with curl -N; is a sign of life sent during a quiet stream; mobile carrier cuts silent tcp streams;
        text/event-stream idle; our azure front door ends the response after nothing came for a while; how many seconds of
        silence until it says something; prove to the browser that the stream still lives; we demo to the boss tomorrow and
        the stream always dies while the model ponders, what helps""",
        "return-tokens-as-token-ids": """I need the vocabulary index of each generated token; token strings are ambiguous
        because of broken utf-8, give me integers; half an emoji in the logprobs output; give back numbers from the vocab and
        no strings; which id did the model sample at each position; rl training needs the exact ids from the api; two
        different tokens look the same in the response; format token_id:123; log probabilities keyed by vocabulary number;
        avoid retokenising the output on the client; my evaluation script wants integer ids of the top alternatives; how to
        see ids, not words, for each candidate; logprobs with replacement characters; vllm has return_tokens_as_token_ids, you
        too; integers instead of subwords; the researcher asks me for raw token numbers; map logprobs to the tokenizer's ids;
        byte fallback tokens are unreadable in logprobs; ids please, no decoded pieces; does the api tell the index of a
        token; render each token as an id; numeric tokens in the logprob list; non-printable tokens in the top_logprobs; I
        compare with another tokenizer and need token numbers; turn text tokens of the probabilities to identifiers""",
        "logprobs-mode": """with temperature 0 the logprobs should all be zero but they are not; logit_bias has no effect on
        the reported probabilities; do the log probabilities include top_p filtering; I want probabilities after the
        repetition penalty; why do logprobs stay the same when I change temperature; unnormalised scores instead of log
        softmax; processed_logprobs as in vllm v1; post-processing logprobs; give me the logits vector; are the returned
        likelihoods those of the unmodified model; logprobs before or after penalties; our paper needs probabilities after
        scaling; switch logprobs to the sampled distribution; the probability of a banned token is still shown; is it
        pre-sampling or post-sampling probability; raw model scores; llama.cpp has post_sampling_probs, is that here; logprobs
        with bias applied; from which stage are the log probs; do penalties change the reported probability; truncated
        distribution probabilities; top_k=1 but the logprob is not 0; logits before softmax through the api; renormalised
        probabilities; why is presence_penalty invisible in logprobs""",
        "runner": """treat this checkpoint as an embedder; I get "the model does not support the embeddings api"; vllm --task
        embed, what is it here; qwen3 embedding is loaded as a text generator; POST /v1/embeddings returns 400 because it is a
        causal lm; use hidden states instead of text; the checkpoint should output vectors and not words; does auto detect
        that it is an embedding model; force generation for a model that is detected as encoder; a decoder as sentence
        encoder; e5-mistral does chat instead of vectors; gte-qwen needs pooling; which value is for vectors, generate or
        pooling; tell it what sort of work the model does; vllm serve --runner pooling; text generation or embedding, where do
        I say that; I already own llama weights and the team wants document vectors from it; wrong task detected; auto,
        generate, pooling; set the model's job; --embedding in llama.cpp; my LLM-based retriever answers with sentences; no
        chat endpoint because it was taken for an encoder; can one and the same llm weights be served to embed; choose what
        kind of output the model has; reward model or score with a decoder""",
        "pooler-config": """cosine similarities from vsrv do not match those of the python library; vectors have a norm of 27
        instead of 1; take the average over all tokens; which token becomes the sentence vector; bge wants the first token;
        use the final token as the representation; switch l2 norm off; dot product versus cosine, I need unit vectors; the
        model card says mean but it takes last; set pooling_type LAST; 1_Pooling/config.json is missing in my folder; vllm
        override-pooler-config; retrieval quality is poor, perhaps the pooling is wrong; --pooling mean in llama.cpp, what is
        it here; max over tokens; how is one vector made from many token vectors; aggregate hidden states; raw length of
        embedding vectors please; similarity above 1, are vectors unnormalised; normalize false; our search team says the
        vectors must be averaged; sentence vector from CLS; change aggregation of embeddings; scale vectors to unit length;
        does it apply mean or last by default; turn normalisation on for the embedder""",
        "convert": """there is --convert reward in my old script; does "convert embed" still mean something; vllm's convert
        parameter, which values do you take; only auto or none is accepted for convert; ported my vllm yaml with convert:
        embed and get an error; as_embedding_model adapter; make a sequence classifier out of a causal lm; is there model
        conversion at load time; adapter for pooling tasks, vllm style; value classify not allowed; why does vsrv not know
        convert reward; convert none; turn causal lm into a scorer with an adapter; migrating from vllm 0.10 with --convert;
        which adapters for pooling exist; as_seq_cls_model; leave the model unconverted; invalid choice embed for the adapter;
        do I have to convert for embeddings; vllm option to adapt the head; convert flag ignored; our helm chart passes
        convert, may it stay; wrap the model for classification; conversion of the head to a classifier""",
        "hf-overrides": """num_hidden_layers is wrong in the checkpoint's json; lay my own keys over the model's settings;
        rope_scaling factor 4 for longer texts; yarn with factor {n} for qwen; the model says 32768 but with yarn it can do
        131072; vllm --hf-overrides; the architectures field names a class that is not known, can I replace it; set
        sliding_window to null in the model's settings; I must not write to the models volume but need another rms_norm_eps;
        monkeypatch the transformers config; edit hidden_act at load time; json that is merged into config.json; fix
        eos_token_id of a broken upload; use original_max_position_embeddings; llama.cpp --rope-freq-base, what is that here;
        --override-kv from llama.cpp; --rope-scaling yarn; hf config overrides; tie_word_embeddings is false but should be
        true; model author made an error in the configuration file; dynamic ntk; rope theta {big}; change vocab_size for an
        experiment; try a value of the architecture without a copy of the folder; give other hyperparameters than those in the
        repository; readonly checkpoint with faulty json""",
        "any-model-name": """continue.dev asks for starcoder and gets not found; the model `gpt-4o` does not exist; error code
        model_not_found; NotFoundError: 404 from the openai library because of the name; I swap models each week and do not
        want to touch the clients; our {n} apps all have a different string in "model"; treat the model parameter as
        decoration; accept requests without model; a closed source app always says text-davinci-003; whatever the caller
        writes, use the loaded one; like llama.cpp, where the model name does not matter; catch-all for model ids; be lenient
        about the name; do not validate which model is requested; legacy phone app has the id compiled in; strict name check
        off; I forget which names the team uses, just take every one; answer even if they ask for claude; can it serve gpt-3.5
        and gpt-4 requests alike without listing them; wrong id should not be an error; fallback for unknown ids; any string
        as model; lmstudio ignores the name, can you; the vendor's plugin insists on an odd model id that changes; is an empty
        model string fine; open model field""",
        "model": """is there --model as in vllm; where in the toml do I write which checkpoint to load; docker compose: which
        variable holds the checkpoint; instead of the positional argument; is the word after serve the same as a flag; model =
        in the config file; systemd environment file with the checkpoint path; helm values: variable for the model id; can I
        leave out the positional and use an option; MODEL_ID of TGI, how is it called here; -m of llama.cpp; --model-path;
        kubernetes env entry that picks the weights; what is served if no model is named; default when I name nothing; do
        --model and the positional argument mean the same; give the repo id by option; launch from a script where the model
        sits in a variable; vsrv serve --model; what happens without a model argument; the name of the option that takes the
        folder or hub id; environment entry for the checkpoint; put the choice of the model in vsrv.toml; vllm serve --model
        is deprecated, and here; long form of the positional model argument""",
        "trust-remote-code": """"please pass the argument trust_remote_code=True"; does vsrv execute configuration_chatglm.py;
        the checkpoint ships tokenization_qwen.py; is a downloaded model a security risk; could a malicious repo take over my
        machine; our security officer asks whether foreign python is run; old falcon needs its own classes; ValueError:
        loading this model requires you to execute the configuration file; baichuan with custom classes; architecture that is
        not built in but has a .py beside the weights; vllm --trust-remote-code; can I use my own modeling class; arbitrary
        code execution through models; plugin architecture from the hub; model needs auto_map; why is remote code refused;
        supply chain attack by model files; allow scripts in the checkpoint folder; import code from the model folder;
        internlm asks for its own modeling python; execute custom layers; how safe is loading an unknown checkpoint; exotic
        architecture with its own implementation; does it import python from huggingface; deepseek repo contains
        modeling_deepseek.py; untrusted models""",
        "trust-request-chat-template": """vllm allows chat_template per request, you refuse; 400 because of chat_template in
        the post body; extra_body chat_template is rejected; let each app of ours send its own jinja; a user wants to override
        the template just for one call; dynamic templates from the caller; is it dangerous to let users upload jinja; jinja
        sandbox escape; chat_template parameter not allowed; template injection; per call prompt layout; the frontend delivers
        the template with every message; accept template from the http body; send jinja along with the messages; two customers
        need different layouts in the same server, sent by them; vllm --trust-request-chat-template; change the template at
        request time; the openai client passes chat_template in extra_body; request specific template; why may a client not
        choose the template; a template that travels with the call; untrusted jinja; user supplied prompt format; custom
        template for a single request""",
        "setup": """ImportError: no module named numpy on the customer's host; pip is blocked by our proxy, where do I get
        torch from; which command fetches pytorch for me; our datacentre has no route to pypi; carry the wheels on a stick to
        the isolated rack; --wheels folder; make ready a new ubuntu box; it wants torch but I have none; prepare gpu packages
        on the fresh server; does it need root to get its packages; I unpacked nothing, just have the pyz and python, what
        next; requirements.txt for the archive; pip install -r for vsrv.pyz; the venv grew to {gb} GB, remove old ones; where
        are the packages of the archive kept; cpu only torch because the gpu build is so large; ModuleNotFoundError:
        safetensors; bootstrap; first thing to do after copying vsrv.pyz; without internet access how I can install; military
        network, no internet; download size of torch too big, take cpu build; freeze of package versions; which dependencies
        must be present; does python3 vsrv.pyz install things by itself; get prerequisites; post install step for ansible""",
        "check": """before I buy the card: is {gb} GB enough for {model}; I fear the restart will break production, can I test
        beforehand; ci job that validates our toml; nginx has -t, what has vsrv; estimate the ram for 70B; pre-deployment
        test; will my new flags be accepted; do the flags contradict each other; how many users could the card hold with this
        model; simulate a start; terraform plan but for the server; is my gpu sufficient; oom before it even happens, predict
        it; show the memory calculation; exit code for a bad configuration; precheck in the pipeline; what would go wrong at
        start; how large a context can I afford; lint vsrv.toml; verify that certificate, port and model are fine before
        launching; can my laptop carry a 7B; syntax check of the settings; report what would block the launch; sizing;
        capacity planning for {model}; does a 13B go into {gb} gigabytes; tell me beforehand which flag is wrong""",
        "chat": """I sit in an ssh session and want to talk to the bot; like ollama run; llm cli; a prompt with history in the
        terminal; no browser on this machine, how do I converse; quick smoke test by typing something; is there an interactive
        mode; read-eval-print loop; how do I ask one question from a shell script; git diff | review it; cat error.log and ask
        what is wrong; talk to a remote vsrv from my console; command line chatbot; /help in the conversation; tui; curl is
        too clumsy for daily use; keyboard conversation with the server; I only have a putty window; send a file on stdin
        together with a question; simple client for testing the running server; does vsrv bring a client; type and get
        streamed words; start a dialog in bash; chatting over ssh; test drive the model by hand; ask in powershell""",
        "complete": """my model is not instruction tuned, let it just continue; finish this sentence in bash; raw text
        continuation without roles; give a beginning, get the rest; generate {n} tokens after a prefix from the shell; prefix
        in, continuation out, in a terminal; v1/completions from the command line; try gpt2-like behaviour on the console;
        autocomplete a poem in the console; write on from "Once upon"; test a pretrained checkpoint by hand; llama-cli -p
        "text" -n {n}; no template, just go on with my words; I want to see raw what the pretrained model adds to my sentence;
        carry on a paragraph in a shell script; let it ramble on after my opening words; continuation command; legacy
        completions in the terminal; how I can make that it continues my text in console; opening line of a novel, model
        writes on, in bash; non chat generation in the shell; continue a code snippet in the terminal; extend text from a
        prompt by cli; uninstructed model test in the terminal; plain continuation; single shot completion by command""",
        "run-batch": """classify {n}00000 tickets over the weekend; translate a catalogue of products from jsonl; my power
        went off halfway through the file of prompts, carry on; openai's /v1/batches locally; custom_id, method, url, body
        lines; generate synthetic training data in bulk; score a test set without http; i have a csv of questions to be
        answered tonight; vllm run-batch -i -o; nightly cron job that answers a file; many prompts and no server running;
        asynchronous mass job; from input.jsonl to output.jsonl; skip the lines that are already done; summarise all articles
        of the archive overnight; process records in bulk; no need for a server, just get the results into a file; does it
        resume after ctrl-c; batch endpoint; LLM.generate offline; evaluate on gsm8k from a file; one answer for each row;
        huge list of prompts at once from disk; how I process very many prompts; annotation of a corpus; scheduled bulk
        inference; read requests from a file and write answers to another file""",
        "keys": """a contractor starts on monday, give him access; a laptop with our token was stolen; onboard a new team; our
        policy says secrets change every quarter; the intern left, take away his token; who has got a token from us; generate
        sk-...; random token generator; the secret landed in a git commit; credential for tenant acme valid for {n} days; a
        trial account for two weeks; hashed entry for the key file; print all issued tokens; disable one customer's token and
        leave the others; add another customer; roll over secrets without downtime; new token for the ci pipeline; how is a
        token created; which command adds an entry to keys.toml; the token got public, what to do fast; access for a partner
        until friday; expire a credential; temporary access for an auditor; delete user from the key file; how do I give
        somebody a key; invalidate the compromised secret; change someone's secret; when does a key run out""",
        "cert": """openssl req -x509 is magic to me, is there something simpler; mkcert alternative; I have neither pem nor
        key, how do I get them for a lab; make https work on localhost in five minutes; intranet without letsencrypt; pki for
        a test cluster; sign a cert for {ip}; generate server.pem; need files for --ssl-certfile, where do they come from;
        certificate with my hostname as san; a root ca for our closed network; issue a client cert for mtls tests; i want to
        try mutual tls but have no certificates; snakeoil certificate; cheap certificate for development; does it bring its
        own ca; create pem and key; own root and a leaf; no dns name, just an ip, need a cert; unit tests with tls need certs;
        self-signed; produce x509 files; sandbox with https; my boss wants encryption but we have no ca; how I create
        certificate; where do ca.pem and server.key come from; valid certificate for 127.0.0.1; certs for a staging system""",
        "bench": """how many chats can my card bear before it gets slow; figures for the management about the performance; p99
        latency; wrk or ab for llms; vllm bench serve; requests per second at {n} clients; is fp8 quicker, measure before and
        after; tpot and itl; load generator; before we go live we want to stress it; throughput of {model} on my gpu; compare
        two settings by measuring; locust for tokens; how long until the first word comes, on average; speed test; tok/s;
        saturate the server; performance regression test in ci; soak test; simulate {n} parallel chats; capacity test; is my
        new gpu any better, I want numbers; median time per token; how I measure how quick is server; percentile figures for
        ttft; hammer it with fake traffic; what can my hardware deliver; generate load""",
        "completion": """typing long flags is tedious, can the shell help; <tab> does nothing after vsrv serve --; bashrc line
        for vsrv; eval in .zshrc; fish completions folder; I never remember the flags, let tab suggest them; complete -F vsrv;
        kubectl completion bash, same for vsrv; source the completion; compdef; oh-my-zsh suggestions; double tab; shell hints
        for options; auto-fill option names in bash; generate a completion file for fish; tab-complete subcommands; does zsh
        know the commands of vsrv; install suggestions for the prompt; argcomplete; /etc/bash_completion.d; expand flags by
        tab; shell integration; typing help for flags; command suggestions with tab; when I press tab I want to see what flags
        exist""",
        "docs": """I want to read about all options in the pager; man vsrv says no manual entry; troff page; handbook on a
        machine without internet; print all options as markdown for our wiki; export the reference; is there a sample toml to
        begin with; offline help; the full documentation on the command line; install the man page; generate a reference for
        the audit binder; where can I read the handbook; vsrv.1; list of all flags on paper; template configuration to copy;
        markdown reference; printed guide; read documentation in the terminal; documentation of each flag as a file; example
        config file with comments; where does the shipped systemd unit text come out; help pages; view the manual with less;
        how do I get the man page out of the archive; reference for colleagues who have no access to the server""",
        "tools": """my agent in crewai needs the model to fetch stock prices; does langgraph work with it; openai function
        schema, is it understood; tools array in the request; finish_reason tool_calls; can the assistant look things up in
        our crm; tool_choice: required; pydantic-ai agents; let the model send mails through my code; several functions in the
        same turn; mcp servers; bind_tools; autogen; call get_weather(city); home assistant wants to switch lamps through the
        model; must I start it with something special for functions; tool role messages; named function only; the model should
        use my calculator when it needs to; function schema with parameters; react agent; can the bot book a room by api; do
        streaming tool calls work; n8n agent node; make the model ask my database; let it decide which of my python functions
        to run; agent loop; parallel_tool_calls""",
        "structured": """we parse the reply with json.loads and it breaks; get name, address and total out of an invoice as
        fields; reply only positive, negative or neutral; json.decoder.JSONDecodeError on the model's text; the bot adds
        "Sure, here is your json"; instructor library; client.beta.chat.completions.parse; zod schema; gbnf grammar as in
        llama.cpp; format json as in ollama; outlines; the answer should be a number between 1 and 10; output a date in iso
        form only; guarantee the keys of the object; typed output; enum answers; the classifier must say one of {n} labels;
        well-formed objects each time; regex for phone numbers in the answer; sql grammar; lm-format-enforcer; strict true
        schema; fill my dataclass; guided_choice, guided_regex; ensure the reply has these properties; we feed the answers
        into a database and they must have columns; no markdown fences around the json; schema enforcement""",
        "embeddings": """chroma needs vectors from somewhere; fill pgvector; llamaindex retriever with my own server; qdrant;
        find duplicates among tickets; text-embedding-ada-002 replacement; cohere rerank replacement; knowledge base search
        for our company; build a faq finder; how near are two sentences in meaning; nomic-embed; sort passages by how well
        they fit the question; bge-reranker; recommendation by text likeness; langchain OpenAIEmbeddings;
        client.embeddings.create; mxbai; multilingual e5; which model do I serve for retrieval; query and passage scores;
        encode sentences; vectorise our wiki; jina-reranker; clustering of texts; text-embeddings-inference alternative;
        all-mpnet; serve an encoder model such as bert; relevance of documents to a query""",
        "messages": """ANTHROPIC_API_KEY and a local server; can claude code run without anthropic's cloud; from anthropic
        import Anthropic; x-api-key and anthropic-version headers; route claude cli to my gpu; sonnet is too expensive, use my
        own model with the same tool; the coding assistant of anthropic offline; messages.stream; input_tokens from
        count_tokens; content blocks of anthropic; claude code says cannot connect to api; litellm with anthropic provider;
        what base url does claude need; save money on claude subscriptions; POST /v1/messages 404; system as top level field,
        as at anthropic; is the other vendor's dialect, not openai's, understood; cline with anthropic provider; our
        developers love claude code but source must not leave the house; vsrv as a claude backend; claude-compatible;
        stop_reason end_turn; tool_use blocks; environment for claude; make it look like api.anthropic.com; anthropic
        typescript sdk""",
        "responses": """wire_api responses or chat; codex refuses my local server; input instead of messages in the request;
        openai.responses.create gives an error; does it remember the former response by id; store: true is not accepted;
        conversation state on the server side; agents sdk from openai against my box; ~/.codex/config.toml; the api that
        replaces chat completions; output_text; response.output_item.added events; codex offline without a chatgpt account;
        model_providers in codex; previous response not found; instructions and input fields; stateful responses; retrieve a
        stored response by id; GET /v1/responses/resp_123; background mode of responses; openai coding cli on our own
        hardware; our programmers use codex and code must stay in house; base_url for codex; newest openai python sdk default
        api; delete stored responses; point the codex terminal agent here""",
        "systemd": """nohup and screen are ugly, do it properly; the machine was rebooted by an update and nobody started
        vsrv; closing putty kills it; ExecStart; restart it when it is killed by the oom killer, by the init system; enable at
        startup of debian; how do I keep it going after I log off; write to journald; sd_notify; WatchdogSec; systemctl status
        vsrv; several named instances as services; /etc/systemd/system; pm2 or supervisor for vsrv; windows service but on
        linux; run under a dedicated user without login; ubuntu autostart; keep alive forever on a vm; init script; it must be
        up at 6 in the morning after the nightly reboot; power outage and it does not return; hold the port open during a
        restart; tmux is no solution for us; unattended operation; rc.local; where do the settings of a service live; template
        unit with an at sign; cron @reboot""",
        "balancing": """we have outgrown a single box; one hostname for {n} servers; round robin or least connections;
        kubernetes replicas: {n}; active passive pair; rolling upgrade of two nodes without anyone noticing; a node goes down
        at night; ingress with several pods; hash of the session so that the cache is warm; X-Session-Id; upstream servers in
        nginx; sla of 99.9 percent; distribute customers among machines; keepalived; traefik with two backends; horizontally;
        what does the health check of the balancer ask; envoy; spread chats on two boxes; add capacity by adding boxes; our
        traffic tripled and we bought a second gpu server; failover example; no single point of failure; same chat should land
        on the same machine; proxy_next_upstream; dns round robin; elastic scaling with more pods; run two copies and share
        the traffic""",
        "zipapp": """hand the program to a customer on a usb key; we are not allowed to run pip in production; the admin wants
        exactly one artefact; create vsrv.pyz from the sources; self-contained python file; like a go binary, just one; shiv
        or pex; how do I package the repo; artefact for our release page; what is in the dist folder; compile the package into
        one executable; cyclonedx list of components; sbom for the audit; prebuilt cuda kernels inside the bundle; same bytes
        at each build; deploy by rsync of one file; no git on the target, only python; appimage; python -m zipapp; single
        artefact for ansible; how to produce the distributable; standalone file; make a wheel of it; move vsrv to another host
        without cloning; hash of the release file; bill of materials; bundle for an offline host, one file; how do I make one
        file from all""",
        "absent": """can it describe a photo; ocr of a scanned page; whisper; my qlora adapter; adapter_config.json; load
        several adapters at once; --enable-lora; medusa heads; draft model for speed; --speculative-config; llava; qwen-vl;
        input_audio in the message; video input; text to image; stable diffusion on the server; generate a picture; base64
        image in the content; "image inputs are not supported"; voice messages; assisted generation; n-gram lookahead; speak
        the answer aloud; tts; mtp heads; pixtral; show the model a screenshot; swap adapters per customer""",
    }.items()
}
