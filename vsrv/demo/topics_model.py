"""What the demo model knows about the options of the model side: which model, its name, files, template, defaults."""

from __future__ import annotations

from vsrv.demo.topic import option, refusal

MODEL = (
    option(
        "served-model-name",
        "sets the name (or names) under which clients ask for the model.",
        "MODEL --served-model-name my-model",
        goals="""give the model another name; rename the model; change the name clients use; set an alias; use
        gpt-4 as the model name; hide the path of the model; show a nice name in /v1/models; have several names for
        one model; pretend to be {name}; choose the name in the api; use a short model name; call the model {name};
        let clients ask for {name}; advertise the model as {name}; offer the model under two names; keep the client
        code that asks for gpt-3.5-turbo""",
        nouns="""the model name; the name of the model in the api; the model alias; the public model name; the
        reported model name; the model id clients send; the name in /v1/models; a nickname for the model; the display
        name; the model id; an alternative name""",
        problems="""my client asks for gpt-4 and gets 404; the model does not exist error; the model name is a long
        path; the program has the model name hard-coded; it says model not found; clients see the folder name; my app
        only knows the name {name}; /v1/models lists an ugly path""",
        asks="""can I rename the model; which model name do clients use; can it answer to the name {name}; how do I
        give it an alias; why is the model name a path; what do I put in the model field; can one model have two
        names""",
        keys="model name; alias; rename; served name; name; model alias; model id; gpt-4 name; nickname; display name",
    ),
    option(
        "revision",
        "chooses the branch, tag or commit of the model on the hub.",
        "Qwen/Qwen3-0.6B --revision main",
        goals="""use a specific version of the model; pin the model to a commit; choose a branch on the hub; load an
        older version; freeze the model version; pick a tag; download a certain commit; stay on one revision; get the
        weights of a particular git commit; use the dev branch of the model""",
        nouns="""the model version; the revision; the branch on hugging face; the commit of the model; the model
        tag; the git revision; the version of the weights; the commit hash; the hub branch""",
        problems="""the model on the hub was changed; the new version of the model is worse; I need exactly the same
        weights as last month; the author updated the repo; the weights live on another branch; the maker pushed a
        new commit""",
        asks="""can I pin a version of the model; which commit of the model is used; how do I load an older
        revision; how to choose the branch; can I use a tag from hugging face; how to stay on the old weights""",
        keys="revision; branch; commit; tag; model version; pin; git commit; hub branch; version pin; commit hash",
    ),
    option(
        "download-dir",
        "sets the folder into which models are downloaded.",
        "Qwen/Qwen3-0.6B --download-dir /data/models",
        goals="""store models on another disk; change where models are downloaded; put the weights on {path}; choose the
        download folder; save the model files elsewhere; move the model cache; download to a bigger drive; keep
        downloads out of my home directory; use a shared model directory; cache the hub files on {path}; save
        downloaded weights to an external drive""",
        nouns="""the download directory; the download folder; the model cache; where models are stored; the cache
        directory; the location of downloaded weights; the hugging face cache; the storage folder; the directory for
        downloads; the place of the model files; the hub cache""",
        problems="""my home directory is full; the disk is full after the download; no space left on device while
        downloading; models should go to {path}; the weights fill my root partition; my ssd is too small for the
        model files; downloads land in ~/.cache""",
        asks="""where are models saved; where does it download to; where do the weights go; can I change the download
        location; in which folder are the models; how to put models on another drive; where is the cache on disk""",
        keys="""download; download dir; cache dir; model folder; storage; disk; download folder; hf_home; cache directory;
        where models; disk full; download location""",
    ),
    option(
        "load-format",
        "sets how weights are read: auto, safetensors, or dummy (random weights for tests).",
        "MODEL --load-format dummy",
        goals="""use random weights; test without real weights; load safetensors; benchmark without downloading the
        weights; use dummy weights; start with fake weights; choose the weight format; try a model shape without its
        weights; skip reading the weights; measure speed with made up weights""",
        nouns="""the load format; dummy weights; random weights; the weight format; the format of the weights; fake
        weights; the checkpoint format; safetensors loading; uninitialised weights; the loader format""",
        problems="""I only want to measure speed and have no weights; the weights are not there, I need random ones;
        I just want to test the shape of the model; I have only a config.json""",
        asks="""can I run with random weights; which weight formats are there; how do I load dummy weights; can it
        start without weights; how are weights loaded; does it read safetensors""",
        keys="dummy; random weights; load format; safetensors; fake weights; weight format; dummy weights; loader",
    ),
    option(
        "chat-template",
        "names a Jinja file that turns chat messages into the prompt.",
        "MODEL --chat-template template.jinja",
        goals="""use my own chat template; change the prompt format; override the chat template; use a custom jinja
        template; format the messages differently; give a template to a model that has none; change how messages become
        a prompt; use chatml; load a jinja file; use the llama prompt format; fix the roles in the prompt; supply a
        conversation template; change the way turns are written""",
        nouns="""the chat template; the prompt template; the jinja template; the message format; the prompt format; the
        conversation template; the template of the chat; the template file; the chat format; the instruction format;
        the turn markup""",
        problems="""the model has no chat template; the chat template is wrong; my base model fails on chat
        completions; the roles are rendered badly; the template that comes with the model has a bug; it says no chat
        template; messages are put together wrongly""",
        asks="""can I use my own template; where does the jinja file go; how are messages turned into a prompt; how do
        I change the chat format; which template is used; can I supply a custom prompt format""",
        keys="""chat template; jinja; template; prompt template; prompt format; chatml; chat format; message format;
        jinja2; template file""",
    ),
    option(
        "tokenizer",
        "names a folder with another tokenizer.json, tokenizer_config.json and chat template than the model's.",
        "MODEL --tokenizer ./my-tokenizer",
        goals="""use a different tokenizer; load the tokenizer from another folder; take the tokenizer of another
        model; override the tokenizer; give the path of tokenizer.json; use a separate tokenizer""",
        nouns="""the tokenizer; the tokenizer path; another tokenizer; the tokenizer folder; tokenizer.json location;
        the vocabulary files""",
        problems="""the model folder has no tokenizer; the tokenizer is in another directory; the tokenizer of this
        fine-tune is broken; tokenizer.json is missing""",
        asks="""can I use another tokenizer; where is the tokenizer loaded from; how to set the tokenizer; which
        tokenizer is used""",
        keys="tokenizer; tokenizer.json; vocabulary; tokenizer path; other tokenizer",
    ),
    option(
        "hf-token",
        "gives the Hugging Face token for gated or private models.",
        "meta-llama/Llama-3.2-1B --hf-token TOKEN",
        goals="""download a gated model; use a private model; log in to hugging face; pass my hugging face token; access
        a gated repository; download llama which needs approval; authenticate at the hub; use my hf account; fetch a
        private repo; supply hub credentials""",
        nouns="""the hugging face token; the hf token; hub login; gated models; private models on the hub; the hub
        token; hugging face authentication; hub credentials; the huggingface access token; the hf account""",
        problems="""the model is gated; the download gives 401 from hugging face; the repository is private; I accepted
        the licence but the download is refused; access to the model is restricted; the hub says I am not authorised;
        403 when downloading llama""",
        asks="""how do I download gated models; where do I put my hugging face token; can I use private models; how to
        log in to the hub; how do I get llama from the hub""",
        keys="""hf token; hugging face token; gated; private model; huggingface login; hub token; gated model; hf login;
        hf_token; gated repo""",
    ),
    option(
        "generation-config",
        "says where sampling defaults come from: auto (the model's generation_config.json), vllm (none) or a folder.",
        "MODEL --generation-config vllm",
        goals="""ignore the model's generation_config.json; not use the sampling defaults of the model; take the sampling
        defaults from a folder; use neutral sampling defaults; choose where sampling defaults come from; load
        another generation config; stop the model from bringing its own temperature; use generation_config.json from
        {path}""",
        nouns="""the generation config; generation_config.json; the source of the sampling defaults; the model's own
        sampling defaults; the generation config file; the origin of the default sampling parameters; the generation
        config folder""",
        problems="""the model's generation_config.json sets odd values; I do not want the defaults shipped with the
        model; the model comes with sampling settings that I do not want; the generation config of the model should
        be ignored""",
        asks="""is generation_config.json used; where do sampling defaults come from; can I ignore the generation
        config; how to switch off the model's own sampling settings; which file holds the default sampling values""",
        keys="""generation config; generation_config.json; sampling defaults source; ignore generation config;
        generation_config; model defaults""",
    ),
    option(
        "override-generation-config",
        "changes sampling defaults such as temperature for requests that do not set them (JSON).",
        "MODEL --override-generation-config '{\"temperature\": 0.7}'",
        goals="""set a default temperature; change the default temperature; set the default top_p; set sampling defaults
        for everybody; make the model less creative by default; change the default sampling parameters; set a server
        wide temperature; use temperature {temp} unless the client says otherwise; set a default max_tokens; make
        answers less random by default; set the default repetition penalty; make it more creative for all clients; give
        top_k a default on the server""",
        nouns="""the default temperature; default sampling parameters; the default top_p; the sampling defaults; the
        server side temperature; the default repetition penalty; the default top_k; temperature for all requests; the
        standard temperature; default sampling values""",
        problems="""my client cannot set a temperature; answers are too random; answers are too creative; the model
        repeats itself and I want a default penalty; all users should get temperature {temp}; clients do not send a
        temperature; the output is too wild for our users""",
        asks="""how do I set the temperature on the server; can I change the default temperature; where is top_p set;
        can the server set sampling parameters; how to make it less creative for everyone; what temperature is used
        when the client gives none""",
        keys="""temperature; default temperature; top_p; sampling; sampling defaults; top_k; default sampling; creativity;
        repetition penalty; sampling parameters; override generation config""",
    ),
    option(
        "max-logprobs",
        "limits how many log probabilities per token a request may ask for (default 20).",
        "--max-logprobs 50",
        goals="""return more logprobs; allow {n} top logprobs; get more alternatives per token; raise the logprob limit;
        limit the log probabilities; ask for the probabilities of more tokens; see the {n} most likely tokens; return
        all token probabilities""",
        nouns="""the logprobs limit; the number of logprobs; log probabilities; top_logprobs; token probabilities; the
        maximum top logprobs; the number of alternatives per token; likelihoods of tokens; the logprob maximum""",
        problems="""my request for {n} logprobs is refused; it says too many logprobs; I need more than 20 logprobs;
        top_logprobs is limited to 20; I need the probability of many tokens""",
        asks="""how many logprobs can I get; can I ask for {n} logprobs; can I see token probabilities; what limits
        top_logprobs; how to get the probabilities of more candidates""",
        keys="""logprobs; top_logprobs; log probabilities; token probabilities; probabilities; logprob; likelihood;
        max logprobs""",
    ),
    option(
        "config",
        "reads options from a TOML file (vLLM's YAML too); the command line and the environment win over it.",
        "--config vsrv.toml",
        goals="""use a config file; put the options in a file; load settings from a file; keep my settings in a file;
        avoid long command lines; read the configuration from {file}; store all options in toml; save my options for the
        next start; have the settings under version control; not type all flags each time; write the options down
        once; start from a settings file; use a toml configuration""",
        nouns="""the config file; the configuration file; the settings file; the toml file; a file with options; the
        configuration in a file; vsrv.toml; the options file; a configuration on disk; the ini file; yaml
        configuration""",
        problems="""my command line is too long; I have to type the same flags each time; I want all settings in one
        file; there are too many flags to type; our settings are kept in git; systemd units with long command lines
        are ugly""",
        asks="""is there a config file; can I put all this in a file; where do I write my settings permanently; does it
        read toml; can options come from a file; what is the format of the configuration file; how do I persist my
        flags""",
        keys="""config file; config; configuration file; toml; settings file; vsrv.toml; yaml; options file; conf;
        configuration; ini""",
    ),
    option(
        "default-chat-template-kwargs",
        "gives variables to the chat template of every request (JSON), for example to turn thinking off.",
        "MODEL --default-chat-template-kwargs '{\"enable_thinking\": false}'",
        goals="""turn off thinking; disable the thinking of qwen; stop the model from reasoning first; switch off reasoning;
        pass variables to the chat template; set enable_thinking to false; have no think block; skip the thoughts before the
        answer; set template variables for all requests; make qwen answer directly""",
        nouns="""thinking mode; enable_thinking; the chat template variables; the template kwargs; the reasoning mode; chat
        template arguments; the think block; non-thinking mode""",
        problems="""qwen thinks for too long; the answer starts with a think block; the model reasons before each answer and I
        do not want it; I do not want to see thoughts""",
        asks="""can thinking be turned off; how do I disable thinking; how do I pass enable_thinking; is there a no-think mode;
        how are template variables set""",
        keys="thinking; enable_thinking; no think; reasoning off; template kwargs; disable thinking; template variables",
    ),
    refusal(
        "quantization",
        "is refused in this version: use a float32, float16 or bfloat16 checkpoint.",
        goals="""load a quantised model; use 4 bit weights; run an awq model; use gptq; quantise the model; use int8 weights;
        run a gguf file; load a 4-bit checkpoint; use fp8 weights; compress the weights""",
        nouns="""quantization; quantised models; 4 bit weights; awq; gptq; gguf; int4; int8 weights; bitsandbytes; the
        quantization method; 8 bit weights""",
        problems="""I only have an awq checkpoint; the gguf model does not load; my model is quantised; I want 4 bit to save
        memory""",
        asks="""does it support quantization; can I use gguf; does awq work; can it load 4 bit models; is int8 supported; can I
        run quantised weights""",
        keys="quantization; awq; gptq; gguf; 4 bit; int4; int8; quantized; bnb; fp8 weights; 4bit; quantisation",
    ),
)
