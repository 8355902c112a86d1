"""More questions about the model side, tools, thinking and usage, in words that the other lists lack; see voices.py."""

from __future__ import annotations

from vsrv.demo.topic import phrases

MODEL_VOICES: dict[str, tuple[str, ...]] = {
    name: phrases(block)
    for name, block in {
        "served-model-name": """what shall I write for "model" in the json when the weights lie in a directory; our
            frontend has gpt-4 baked into it and I cannot recompile it, what name do I give the local one; openwebui's
            dropdown shows a filesystem path; the picker in the web ui lists /home/me/files/checkpoint-500; The model
            `{name}` does not exist; NotFoundError: model {name} not found; brand it as acme-ai; marketing wants our own
            brand on the llm; give it a pretty title; publish it under our product's title; disguise qwen as {name};
            expose it to clients as {name}; how is the thing identified over the api; --alias in llama.cpp, what is it
            here; ollama cp gives a second name, is there the same; litellm sends {name}, what must the server be called;
            default name that clients use; two aliases, {name} and prod; swap the weights behind a constant name; keep one
            stable name while we exchange the checkpoint; which string identifies the model; do not leak my directory
            through /v1/models; how is model called for outside world; the id field of the models list should say {name};
            my colleagues find the identifier too clumsy, something shorter; answer under the label {name}; customers
            should see our name and not qwen; can I baptise it {name}""",
        "revision": """reproducible deployment: always the identical checkpoint; for the audit we must prove which exact
            checkpoint was used; the vendor pushed an update and quality dropped, go back; roll back to the weights before
            the update; downgrade the checkpoint to the previous upload; sha of the checkpoint; from_pretrained has
            revision=, and here; refs/pr/{n} on huggingface; take the files of a pull request on the hub; weights on the
            branch called fp16; model@v1.1; repo:tag as in docker, for weights; default is main, is it; which snapshot
            does it fetch; nail the checkpoint down; never silently take newer weights; prevent the weights from changing
            under my feet; git checkout for models; my team must all get the same snapshot; load the experimental branch;
            the step-{n} branch of pythia; intermediate checkpoint that lives on its own branch; supply chain policy says
            pin by hash; upstream overwrote main; how to have old model version back; historical weights; a fixed snapshot
            please; checkpoints before the last change""",
        "download-dir": """OSError: [Errno 28] No space left on device; safetensors fill up my c drive; /root is only {gb}
            GB and the fetch aborts; the container loses its weights at each restart, I want to mount a volume for them;
            persistent volume claim for the weights; every new pod fetches {gb} GB again, can the files live on a pvc;
            HF_HUB_CACHE; OLLAMA_MODELS equivalent; docker -v for the weights, which place inside; TRANSFORMERS_CACHE;
            huggingface files go to which place; target folder of the fetch; keep fetched checkpoints on {path}; where can
            I delete old models; I want to erase a fetched model from disk, where is it; it keeps writing to .cache in my
            home; home has a quota on our cluster; put the checkpoints on lustre scratch; read only home directory,
            fetching fails; permission denied writing ~/.cache/huggingface; two servers shall share the fetched files; usb
            disk for the weights; my nvme is small but I have a big hdd; where does it stash the files from the hub; save
            location; relocate the weights storage; my laptop's drive is full of llms; where are put the models when it
            downloads them""",
        "load-format": """stress test the scheduler with nonsense weights; profile a 70B shape without having it; ci
            pipeline should start the server without gigabytes of tensors; garbage output is fine, I only test the
            plumbing; untrained parameters; initialise the parameters at random; simulate a model; mock weights; an empty
            model for load tests; how do I get a stub model of the right size; capacity planning before we got the licence
            for the weights; I own the config but not the tensors; --load-format as in vllm, which values; sharded
            safetensors, are they read; my folder has pytorch_model.bin; consolidated.pth is not read; npcache or pt;
            runai streamer; tensorizer format; which file type of tensors is accepted; how are checkpoint files
            interpreted; skip the tensors completely; integration tests with a fake llm; measure the hardware with a
            hollow model; no tensors on the disk, start regardless; weights reader; zero download performance test; make
            it produce rubbish but at true speed""",
        "chat-template": """As of transformers v4.44, default chat template is no longer allowed; answers are garbage
            because the turn markers are missing; the assistant goes on talking as the user; it plays both sides of the
            talk; my pretrained base checkpoint knows no roles, what shall I supply; 400 when I post messages, but
            /v1/completions works; TemplateError: roles must alternate; system role not supported by gemma, how do I work
            around it; --chat-template-file of llama.cpp; TEMPLATE line of an ollama Modelfile, what is it here;
            --chat-template in tgi; replace what tokenizer_config.json says about the conversation; my own .jinja;
            chat_template.jinja from another repo; where does [INST] come from; put <|im_start|> around turns; the
            fine-tune was trained with ### Instruction:; our finetune uses a home-made dialogue syntax; wrap the messages
            another way; inject a standing system prompt for everybody; insert a default system message on the server; how
            the dialogue is laid out for the model; zephyr format; fix a faulty template without touching the model
            folder; it ignores the system message; point to a jinja on disk; how messages get glued into one string; I
            would supply own scheme of conversation""",
        "tokenizer": """OSError: can't load tokenizer for my folder; fine-tuned weights without vocab.json; the merge lost
            its tokenizer, take that of the base; use the base checkpoint's tokenizer with the merged weights; extended
            vocabulary in its own folder; wrong special tokens, I patched tokenizer_config.json in a copy, how do I use
            the copy; eos token is wrong in the tokenizer of this model; the answer never ends because the end token is
            wrong, I have corrected tokenizer files; umlauts come out broken, swap the vocabulary; sentencepiece model;
            tokenizer.model instead of tokenizer.json; bpe merges from elsewhere; vllm --tokenizer; does it have a flag
            for the tokenizer repo; added tokens in a different directory; load vocab from {path}; which vocabulary is
            applied; where does it take its merges from; words are split wrongly; keep weights and vocabulary apart;
            tokenisation with files of my own; the lexicon of the model is in other folder; point at other vocab files; a
            corrected tokenizer next to the model; byte pair files; encoder of text to tokens, can I exchange it; is it
            possible to give tokenizer apart""",
        "hf-token": """GatedRepoError; 401 Client Error: Unauthorized for url huggingface.co; Cannot access gated repo;
            You must be authenticated to access it; how do I prove to huggingface that I may have gemma; I clicked agree
            on the llama page, what next; our company's private organisation on huggingface; RepositoryNotFoundError
            although the repo exists, it is private; HUGGING_FACE_HUB_TOKEN; HF_TOKEN in kubernetes secrets; read token
            from the settings page of huggingface; where does hf_abc123 go; hub access key; my own uploaded model is not
            public; weights that need an agreement; mistral asks for a licence click and the fetch fails; download rate
            limit for anonymous hub users; fetch as a logged in user; sign in at huggingface from the container; do I need
            an account at huggingface; is a hub account needed; restricted repositories; pull a model that is not public;
            download of the model forbidden 403; fetch closed weights; the token of the hub, not of my server; how give
            permission for closed repo of model; credentials to pull from the hugging face hub""",
        "generation-config": """vllm prints that default sampling parameters were overridden by the model's generation
            config; my benchmark differs from openai because the checkpoint imposes top_k 20; who set temperature 0.6, I
            never did; the creator's recommended sampling is applied silently; can I disregard what the model's author
            recommends; do not obey the author's sampling recommendations; plain defaults in place of those of the
            checkpoint; --generation-config vllm; load recommended sampling from {path}; keep a different
            generation_config.json outside of the model folder; a directory with my own generation_config.json; read only
            checkpoint, other generation_config.json; what is generation_config.json used for here; does it honour
            generation_config.json; presets shipped by qwen should not apply; same defaults for all our models regardless
            of what they ship; without the vendor's sampling values; where come the defaults of sampling from; source of
            default top_p; bypass the shipped sampling; temperature 1 unless asked as at openai; auto or vllm; eos ids
            from generation config; evaluation with lm-eval must not be affected by shipped sampling; drop the
            checkpoint's suggestions; file of generation settings ignored or used; neutral sampling; origin of presets""",
        "override-generation-config": """the bot is too inventive, our lawyers want sober replies; chatbot hallucinates a
            lot, calm it down on the server; replies are dull, add some variety for everyone; the frontend has no slider
            for temperature; my app offers no way to choose sampling; PARAMETER temperature in a Modelfile, and here;
            --temp {temp} of llama.cpp; --top-k and --top-p of llama.cpp on the server; greedy decoding as the standard;
            make zero the standard temperature; fallback values for sampling; it says the same sentence again and again,
            penalise that for all; loops and repeats phrases; frequency_penalty preset for every caller; presence penalty
            server side; min_p 0.05 for everybody; answers stop after few words because clients send no max_tokens;
            default length of an answer; preset max_new_tokens; cap the answer to {n} tokens unless the client says so;
            how adventurous is it; nucleus sampling for all; set heat to {temp}; more sober; I do not want to touch every
            client, set top_p centrally; centrally managed sampling values; json with temperature and top_p at startup;
            less fantasy in the responses for all users""",
        "max-logprobs": """400: requested more logprobs than permitted; top_logprobs={n} is turned down; Requested sample
            logprobs of {n}, which is greater than max allowed; I study calibration and need the whole distribution;
            confidence of the model in each word; uncertainty estimation needs many candidates; distillation from the
            teacher's top {n}; knowledge distillation needs wide distributions; perplexity research; runner-up words with
            their scores; alternatives that it considered at every position; full vocabulary probabilities, -1; n_probs of
            llama.cpp; top_n_tokens of tgi; openai permits 20, can I have more; ceiling for probabilities per position; do
            not let people request huge probability lists; how many candidates come back at most; prompt_logprobs={n}; is
            prompt_logprobs bounded; scoring of classes by token chances; second best token; list of the likeliest
            continuations; entropy of next token; log-likelihood ranks; raise 20 to {n} for probabilities; I would see
            chances of many words; widen the candidates list""",
        "config": """my ExecStart line has {n} arguments; shell script with fifteen switches, ugly; turn my flags into a
            document; ansible template for all settings; ConfigMap in kubernetes that holds the options; mount {file} into
            the container; can I hand over vllm's config.yaml; yaml of vllm reused; one settings document for each
            environment; nginx has nginx.conf, what has vsrv; is there something like .vsrvrc; load everything from
            {file}; start with {file}; which wins, the command line or the toml; precedence of file and flags; syntax of
            the toml; put port and model and key in {file}; reuse the same flags tomorrow; save my choices; preset file;
            profile files for dev and prod; reviewable settings in a git repository; store parameters on disk; where does
            the server look for its settings; path to settings; my colleague should start it with exactly my flags; ini or
            toml; how to write all parameters in one place""",
        "default-chat-template-kwargs": """it ponders for a minute before the first useful word; qwen3 burns hundreds of
            tokens on pondering; skip the monologue and get to the point; users wait too long because it deliberates; save
            tokens by not deliberating; no deliberation; /no_think for everybody; /nothink on the server; ollama's
            think=false; --reasoning-budget 0 of llama.cpp; extra_body chat_template_kwargs for all clients; my client
            cannot send chat_template_kwargs; chat_template_kwargs at the server; hybrid model without the thinking phase;
            instruct behaviour out of a hybrid model; make granite think; switch thinking on for deepseek v3.1;
            reasoning_effort low for gpt-oss as the standard; low effort by default; straight to the answer; set a jinja
            variable globally; give date_string to the llama template; parameters for the jinja, not the jinja itself;
            make thinking the exception; disable the cot of qwen; turn thinking off for the whole company; the model
            overthinks simple things; how I forbid him to think""",
        "quantization": """my card has {gb} GB and I only find Q4_K_M files; .gguf from thebloke; can it read lm studio
            models; ollama blobs; nf4; AutoAWQ; TheBloke/Mistral-7B-GPTQ; fp8 checkpoint of llama; squeeze a 70B into {gb}
            GB by fewer bits; shrink the weights to four bits; fewer bits per weight; --quantize of tgi; quantise on the
            fly at load; halve the size with eight bits; unsloth bnb-4bit repo; quant_method in config.json; unsupported
            quantization config; low bit inference; unpack llama.cpp files; can I serve a Q8_0; mlx 4bit from my mac;
            smaller than bf16; does the engine know quantised tensors; low precision integers for weights; compressed
            checkpoint of neuralmagic; hqq, quip or exllama weights; nvfp4 or mxfp4 as in gpt-oss; load_in_8bit=True or
            load_in_4bit""",
        "tool-call-parser": """the assistant writes <tool_call> as a sentence; tool_calls is null and the call sits in
            content; my agent gets a string like [TOOL_CALLS] instead of a call; <function=get_weather> turns up in the
            text; <|python_tag|> in the reply; langchain never sees a call, only json as text; home assistant prints the
            call instead of acting; n8n agent receives raw text in place of a function invocation; --tool-call-parser
            hermes as in vllm; which parser for llama 3.1; which one for mistral nemo; parser for deepseek v3; granite
            tool syntax; kimi or glm tool markup; what formats of calls does it understand; the template does not reveal
            how the model calls; tell the server in which notation calls come; notation of function invocations; it
            guesses the wrong call format; name the call dialect; extraction of invocations; model has no known tool
            format; tools refused since the format is unknown; no tools at all on this server; forbid function calling
            altogether; extract calls from generated text; my finetune emits xml calls; dialect of calls""",
        "enable-auto-tool-choice": """"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be
            set; I migrate from vllm and have --enable-auto-tool-choice in my yaml; helm chart for vllm sets
            enable-auto-tool-choice, keep it or drop it; copy my old vllm start line with auto tool choice; is that vllm
            switch for automatic choice obsolete; may I delete enable-auto-tool-choice; what effect has the automatic
            choice flag; is the model free to choose a tool without a flag; must I opt in before it may pick a tool
            itself; tool_choice: "auto" without any flag; default of tool_choice auto; auto choice; tool_choice=auto
            returns 400 in vllm; opt in to automatic tools; the model decides by itself if it calls; is auto accepted as
            tool_choice; allow the model to choose a tool freely; vllm compatibility switch for tool choice; is the auto
            flag a no-op; does that auto flag do anything; auto-tool-choice needed; our old script has the auto tool flag;
            do I have to permit tool_choice auto; automatic selection of tools flag""",
        "tool-strict-level": """a little model forgets required arguments of a function; it passes a string where the
            function wants an integer; my function crashes on malformed arguments; json.loads fails on the arguments of a
            call; JSONDecodeError in function.arguments; missing parameter in a function invocation; it made up a function
            called get_wether; strict: true for every function; strict everywhere though the client sends none; enforce
            parameter types of functions; constrain calls by a grammar; arguments that always validate; wrong enum value
            in a call; agent breaks since arguments are not what the schema says; only names from the list; call only
            functions that were declared; the function name should be one of mine; how far are calls constrained; level of
            constraint for functions; auto, function or parameter; guarantee that calls fit their declaration; openai's
            strict functions as a server default; typed arguments; unknown function called; validation of calls while
            generating; enforce schemas of functions; bad types in calls; I would that arguments are always right""",
        "exclude-tools-when-tool-choice-none": """tool_choice: "none" but the prompt still carries the definitions; I send
            tools with none and it babbles about functions; with none it still mentions my functions; the prompt is {n}
            tokens longer though functions are off for this turn; save tokens in turns where no function is permitted; cut
            the function list for tool_choice none; strip the declarations when none; does none remove the definitions
            from the prompt; my framework always attaches tools, even with none; final summarising turn without any
            function in view; vllm exclude-tools flag; is the model aware of tools under none; the model must not even
            know the functions when none is chosen; prompt bloat by unused tools; tool definitions are rendered although
            forbidden; tools plus none; none should mean invisible; leave out declarations; drop function schemas if
            choice is none; conceal functions in a turn with none; tool_choice none still writes a call; none and tools in
            one request; make none cheaper; omit tools for none""",
        "reasoning-parser": """</think> appears in my chat window; our customers see the model's deliberations; hide the
            chain of thought from end users but keep it in the json; message.reasoning is absent; delta.reasoning_content
            in streams; openwebui shows no fold-out box for thoughts; collapse the thoughts in the ui; deliberation and
            result in two fields; two separate fields, one for pondering; thinking comes as part of content; content
            begins with "Okay, the user wants"; my app parses content and stumbles over the thoughts; --reasoning-format
            of llama.cpp; --reasoning-parser deepseek_r1; parser for magistral [THINK]; granite's thoughts; gpt-oss
            analysis channel; which delimiters enclose the thoughts; delimiter of the deliberation; r1 thoughts in their
            own field; unsplit output please, with thoughts inline; keep thoughts inline; do not cut thoughts out of
            content; where did the thoughts go; content is empty and everything is in reasoning_content; thoughts land in
            the wrong field; extract the thinking; I would read what he thinks in extra place""",
        "structured-outputs-config": """schema output is pretty printed and wastes tokens; newlines and indentation in
            schema answers; json mode goes on with blanks until max_tokens; it emits tabs for ever in json mode; one-line
            json from every schema request; dense json; save tokens by dropping blanks in json; fields that I never
            declared turn up in the object; extra keys in the object; additionalProperties false for all; treat all
            objects as closed; global preferences for schemas; backend of guided decoding, xgrammar or outlines;
            --guided-decoding-backend of vllm; --guided-decoding-disable-any-whitespace; guidance backend; which grammar
            engine; set the xgrammar whitespace rule; no blanks between the fields; serverwide rule for json_schema;
            minify; strip indentation; settings for constrained decoding of the whole server; tight json; structured
            output defaults; forbid undeclared fields; my parser is slow with pretty json, want compact; any_whitespace""",
        "chat-template-content-format": """jinja says string expected but got list; can only concatenate str (not "list")
            to str in the template; the rendered prompt shows a python list with type and text; template shows python list
            in the prompt; the prompt contains "type: text" literally; the jinja iterates over content and gets single
            letters; message['content'] | trim fails on a list; is content flattened before jinja; flatten text parts to
            one string for jinja; hand jinja the array unflattened; array or plain text to jinja; shape of content inside
            the template; content type passed to jinja; auto detection of content shape is wrong; detected content format
            is string, I want openai; vllm logs detected the chat template content format; --chat-template-content-format
            string; multimodal style template with a text-only model; template written for openai arrays; clients send
            content arrays and the template chokes; llama vision template needs parts; content as array; text parts joined
            or not; keep parts apart for the template; raw list of parts; content representation; how comes the content in
            jinja, list or text""",
        "response-role": """message.role says assistant, my program wants "model"; gemini style clients need role model;
            role "bot" in replies; role should be "ai"; our legacy frontend knows only "bot" as the author; author name of
            generated text; change "assistant" in the json of the reply; delta.role in the stream; first chunk carries
            role assistant, other word please; what does choices[0].message.role contain; who is named as the author; call
            the answerer "expert"; swap the word assistant; role label; default role of messages that come back; vllm
            --response-role; add_generation_prompt and response role; custom role string; author of the answer; replies
            signed as "agent"; sender field; the returned message has the wrong role; role returned to clients; put
            "system" as the role of what comes back; which role is written in the reply; name in the role field; role
            value""",
        "enable-prompt-tokens-details": """usage.prompt_tokens_details is null; prompt_tokens_details.cached_tokens as at
            openai; we bill cached input cheaper, where is that number; discount for cached input needs the cached share
            per request; prove to my boss that caching pays off in each call; did this call hit the prefix cache; which
            portion of my prompt was not recomputed; how much of the input was reused in this very call; cache statistics
            per response; read cache hit per request from the json; cached share in the usage object; details about input
            tokens; breakdown of prompt tokens; usage shows only totals; my cost tool wants cached input tokens; langfuse
            does not show cached tokens; litellm cache discount; the usage object should be smaller, drop the details;
            hide how much was cached; a side channel: do not tell clients about cache hits; strip cached_tokens; breakdown
            off; vllm --enable-prompt-tokens-details; cached input count; cache_read_input_tokens; per call cache info;
            tokens taken from cache in response; is cached part reported by default""",
        "enable-force-include-usage": """finance bills by token, yet streaming calls carry no numbers; the last chunk has
            no usage; usage missing with stream=true; chunk.usage is None; stream_options include_usage for everybody;
            legacy client streams without stream_options, I need its consumption; litellm proxy counts zero for streams;
            openwebui shows no tokens per second for streams; cost accounting for streaming; consumption of streamed chats
            for the monthly invoice; make the final event carry the totals; totals in the last event; prompt_tokens and
            completion_tokens while streaming; meter streaming traffic; token totals after each stream; non-streaming has
            usage, streaming does not; force numbers into all streams; my gateway must meter tokens in sse; kong or apigee
            token metering; how many tokens did a streamed reply consume; numbers only if the client asks, I want them
            always; --enable-force-include-usage; unconditional usage; usage without asking; consumption report at stream
            end; charge teams for streams; count of streamed tokens is lost; tokens used when it streams""",
    }.items()
}
