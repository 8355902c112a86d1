"""What the demo model knows about options of chats and answers: tools, thinking, JSON, streams, pooling, names."""

from __future__ import annotations

from vsrv.demo.topic import option, refusal

CHAT = (
    option(
        "tool-call-parser",
        "names the format of the model's tool calls where the chat template does not show it, such as hermes; none: no tools.",
        "MODEL --tool-call-parser hermes",
        goals="""choose the tool call format; set the tool parser; parse the tool calls of hermes; use the llama3_json parser;
        read pythonic tool calls; turn tool calling off; override the detected tool format; fix how tool calls are read; parse
        function calls of mistral; use the qwen3_coder tool format""",
        nouns="""the tool call parser; the tool parser; the format of tool calls; the function call format; the hermes parser;
        llama3_json; pythonic tool calls; the tool call syntax; qwen3_coder""",
        problems="""tool calls come as plain text; the tool call is in the content instead of tool_calls; the model's tool calls
        are not recognised; my model writes tool calls in another format; it says the model has no tool format; tool calls are
        not parsed""",
        asks="""which tool call formats are there; how do I choose the tool parser; which parser does qwen need; why are tool
        calls not parsed; how does it know the tool format; can I switch tools off""",
        keys="""tool call parser; tool parser; hermes; llama3_json; pythonic; tool format; parser; function call format;
        qwen3_coder; tool call format""",
    ),
    option(
        "enable-auto-tool-choice",
        "is accepted for vLLM's command lines and changes nothing: with tools the model may always choose.",
        "MODEL --enable-auto-tool-choice",
        goals="""enable auto tool choice; let the model decide whether to call a tool; turn on automatic tool choice; allow
        tool_choice auto; set auto tool choice as in vllm""",
        nouns="auto tool choice; automatic tool choice; tool_choice auto; the auto tool flag",
        problems="""vllm said that auto tool choice requires a flag; "auto" tool choice needs to be enabled; my vllm command has
        a flag for auto tool choice""",
        asks="""do I need a flag for tool_choice auto; must I enable automatic tool choice; is auto tool choice on""",
        keys="auto tool choice; tool choice auto; enable auto tool choice; automatic tool choice",
    ),
    option(
        "tool-strict-level",
        "says which tool calls follow a grammar: auto (required, named or strict ones), function (all names) or parameter.",
        "MODEL --tool-strict-level parameter",
        goals="""hold every tool call to its schema; make all tool calls strict; guarantee valid tool arguments; constrain the
        arguments of tool calls; prevent invented function names; force tool calls to follow the schema; check tool arguments
        by a grammar; stop the model from calling tools that do not exist""",
        nouns="""strict tool calls for all requests; the tool strictness; the strict level of tools; grammar for tool calls;
        constrained tool arguments; valid tool arguments""",
        problems="""the model invents function names; tool arguments do not match the schema; the arguments of a tool call are
        invalid json; a small model makes mistakes in tool calls; the model calls a tool that does not exist""",
        asks="""can tool calls be forced to follow their schema; how do I get valid tool arguments; are tool arguments checked by a
        grammar; how strict are tool calls; clients do not send strict but I want it; hallucinated function names; wrong
        parameters in function calls; broken arguments; make small models reliable with tools""",
        keys="tool strict level; strict tools; strict; tool grammar; valid tool arguments; tool strictness",
    ),
    option(
        "exclude-tools-when-tool-choice-none",
        "hides a request's tools from the model where its tool_choice is none.",
        "MODEL --exclude-tools-when-tool-choice-none",
        goals="""hide the tools when tool_choice is none; not show tools to the model when it may not call them; leave the tools
        out of the prompt for tool_choice none; save prompt tokens when tools are not to be called""",
        nouns="tools with tool_choice none; hidden tools; the exclusion of tools; tool_choice none",
        problems="""the model calls a tool although tool_choice is none; tools fill the prompt even with tool_choice none""",
        asks="are tools shown to the model when tool_choice is none; can tools be left out of the prompt",
        keys="exclude tools; tool choice none; hide tools; tools none",
    ),
    option(
        "reasoning-parser",
        "names the tags around the model's thinking, such as qwen3 or deepseek_r1; none leaves thinking in the answer.",
        "MODEL --reasoning-parser qwen3",
        goals="""separate the thinking from the answer; get reasoning_content; parse the think tags; split reasoning and answer;
        leave the thinking in the content; choose the reasoning parser; read deepseek's thoughts apart; move the think block
        out of the answer; get the reasoning in its own field; keep the think tags in the text""",
        nouns="""the reasoning parser; reasoning_content; the think tags; the reasoning field; the reasoning output; parsing of
        the thoughts; deepseek_r1 parser; the tags of the thinking; the format of reasoning""",
        problems="""the think tags are in the answer; the reasoning is mixed with the answer; reasoning_content is empty; my
        client shows the thoughts as text; I want the raw output with think tags; the thinking is not recognised""",
        asks="""how do I get the reasoning apart from the answer; which reasoning parser do I need; where does the thinking go;
        can the thoughts stay in the content; how do I parse think tags; is there reasoning_content""",
        keys="""reasoning parser; reasoning_content; think tags; reasoning; deepseek_r1; separate thinking; reasoning field;
        parse thinking; thoughts""",
    ),
    option(
        "structured-outputs-config",
        "sets defaults for structured outputs (JSON): disable_any_whitespace, disable_additional_properties.",
        "MODEL --structured-outputs-config '{\"disable_any_whitespace\": true}'",
        goals="""get compact json from the model; forbid whitespace in structured outputs; forbid additional properties by
        default; set defaults for guided decoding; configure structured outputs for the whole server; disable any whitespace
        in json answers; stop the model from padding json with spaces""",
        nouns="""the structured outputs config; the defaults of structured outputs; disable_any_whitespace; whitespace in json
        answers; disable_additional_properties; the guided decoding config; compact json output""",
        problems="""the json answers are full of spaces and line breaks; the model adds properties that are not in the schema;
        the model writes endless whitespace in json mode; I want the json in one line""",
        asks="""how do I get json without whitespace; can additional properties be forbidden on the server; where are the
        defaults of structured outputs set; how is guided decoding configured""",
        keys="""structured outputs config; compact json; whitespace json; disable_any_whitespace; additional properties;
        guided decoding config""",
    ),
    option(
        "chat-template-content-format",
        "sets how message content reaches the chat template: auto, string or openai (a list of parts).",
        "MODEL --chat-template-content-format openai",
        goals="""pass content as a list of parts to the template; give the template plain strings; choose the content format of
        messages; hand over content parts to the jinja template""",
        nouns="the content format; the format of message content; content parts in the template; the template content format",
        problems="""my template expects a list of content parts; the template gets a string but wants parts; content parts are
        rendered wrongly""",
        asks="how does content reach the template; is content a string or a list in the template",
        keys="content format; content parts; template content; string or openai; message content format",
    ),
    option(
        "response-role",
        "sets the role of answers (default assistant).",
        "MODEL --response-role assistant",
        goals="""change the role of answers; give answers another role; rename the assistant role; set the role in the reply""",
        nouns="the role of answers; the response role; the role in the response; the answer's role name",
        problems="my client expects another role in the answer; the role of the reply should not be assistant",
        asks="which role do answers have; can the answer have another role",
        keys="response role; role; answer role; assistant role",
    ),
    option(
        "enable-prompt-tokens-details",
        "reports in usage how many prompt tokens came from the cache (on by default).",
        "--no-enable-prompt-tokens-details",
        goals="""see how many prompt tokens were cached; report cached tokens; get prompt_tokens_details; find out how much of a
        prompt was in the cache; hide cached_tokens from usage""",
        nouns="cached_tokens; prompt_tokens_details; the cached tokens in usage; the number of cached prompt tokens; usage details",
        problems="I cannot see whether the cache was hit; cached_tokens is missing; usage has no details",
        asks="how many tokens came from the cache; does usage report cached tokens; where do I see cache hits of a request",
        keys="cached_tokens; cached tokens; prompt tokens details; usage details; cache hits usage",
    ),
    option(
        "enable-force-include-usage",
        "sends the token usage at the end of every stream, also where the request does not ask for it.",
        "--enable-force-include-usage",
        goals="""always send usage in streams; get token counts for streamed answers; add usage to every stream; count the tokens
        of streaming requests; include usage without stream_options; bill streamed requests""",
        nouns="""usage in streams; token counts of streams; stream usage; include_usage for all; the usage chunk; the usage of
        streamed answers""",
        problems="""streamed answers have no usage; my client does not send stream_options; my billing misses streamed tokens;
        usage is null in streams""",
        asks="how do I get usage when streaming; can every stream report tokens; why is there no usage in my stream",
        keys="stream usage; include_usage; force usage; token count stream; stream_options",
    ),
    option(
        "sse-keep-alive-interval",
        "sends a comment line after so many silent seconds in a stream (default 15; 0: never).",
        "--sse-keep-alive-interval 5",
        goals="""keep a silent stream alive; send keepalive comments in streams; stop the proxy from cutting quiet streams; send
        a ping in the event stream; turn off comment lines in streams; avoid timeouts while the first token is awaited""",
        nouns="""sse keep alive; comment lines in streams; the stream ping; keepalive events; the heartbeat of streams; server
        sent event pings; the sse interval""",
        problems="""my proxy cuts the stream while it waits for the first token; cloudflare closes silent streams; my client
        stumbles over comment lines in the stream; the stream dies before the first token; lines that begin with a colon
        confuse my parser""",
        asks="are there pings in streams; what are the lines with a colon in the stream; how do I keep the sse stream open",
        keys="sse; sse keep alive; comment lines; stream ping; heartbeat; server sent events; stream keepalive; keepalive comment",
    ),
    option(
        "return-tokens-as-token-ids",
        "shows the tokens of logprobs as token_id:N in place of text.",
        "--return-tokens-as-token-ids",
        goals="""get token ids in logprobs; see the ids of the tokens; return tokens as ids; have numbers instead of text in the
        logprobs""",
        nouns="token ids in logprobs; tokens as ids; token_id:N; the ids of logprob tokens",
        problems="the tokens of the logprobs cannot be told apart as text; I need the token ids of the logprobs",
        asks="can logprobs show token ids; how do I get the ids of the tokens",
        keys="token ids; tokens as ids; token_id; logprob ids; return token ids",
    ),
    refusal(
        "logprobs-mode",
        "cannot be changed: logprobs are raw, taken before bias, penalties and temperature.",
        goals="""get processed logprobs; take logprobs after temperature; change what logprobs are computed from; return raw
        logits""",
        nouns="the logprobs mode; processed logprobs; raw logits; logprobs after sampling changes; raw_logprobs",
        problems="the logprobs do not show my temperature; logprobs ignore the penalties",
        asks="are logprobs taken before or after temperature; can I get processed logprobs",
        keys="logprobs mode; processed logprobs; raw logprobs; raw logits; processed_logits",
    ),
    option(
        "runner",
        "says what the model is to do: auto, generate (text) or pooling (embeddings and scores).",
        "Qwen/Qwen3-0.6B --runner pooling",
        goals="""make embeddings with a chat model; use a decoder for embeddings; run the model as an embedding model; force the
        pooling mode; choose between generating and embedding; turn a language model into an embedder; get vectors from qwen""",
        nouns="""the runner; the pooling mode; the pooling runner; the task of the model; embedding mode; generate or pooling;
        embeddings from a decoder""",
        problems="""/v1/embeddings says that the model generates text; my decoder should make embeddings; my embedding model is
        started as a chat model; the model is taken for a generator""",
        asks="can a chat model make embeddings; how do I switch to pooling; which mode does the model run in; what is the runner",
        keys="runner; pooling; pooling mode; embedding mode; task; runner pooling; decoder embeddings",
    ),
    option(
        "pooler-config",
        "changes how a pooling model makes its vector (JSON): pooling_type CLS, MEAN, LAST or MAX, and normalize.",
        'MODEL --pooler-config \'{"pooling_type": "MEAN"}\'',
        goals="""use mean pooling; take the cls token; change the pooling type; use last token pooling; not normalise embeddings;
        get unnormalised vectors; choose how token vectors are pooled; normalise the embeddings""",
        nouns="""the pooling type; mean pooling; cls pooling; last token pooling; max pooling; normalisation of embeddings; the
        pooler; vector normalisation""",
        problems="""my embeddings differ from sentence-transformers; the vectors are not normalised; the model wants mean pooling
        but has no modules.json""",
        asks="which pooling is used; how do I set mean pooling; are embeddings normalised; can pooling be changed",
        keys="pooler; pooling type; mean pooling; cls; normalize; last token; pooler config; normalise embeddings",
    ),
    option(
        "convert",
        "is vLLM's adapter option: auto or none; for embeddings of a decoder use --runner pooling.",
        "MODEL --convert auto",
        goals="convert a model for pooling; set the pooling adapter; convert the model to embed; use convert embed as in vllm",
        nouns="the pooling adapter; the convert option; conversion to an embedding model; convert embed; convert classify",
        problems="my vllm command has a convert flag; convert embed is refused; convert classify is refused",
        asks="what became of vllm's convert option; can a model be converted to a classifier",
        keys="convert; adapter; convert embed; convert classify; pooling adapter",
    ),
    option(
        "hf-overrides",
        "lays a JSON object over the model's config.json.",
        "MODEL --hf-overrides '{\"rope_theta\": 1000000.0}'",
        goals="""change a value of the model's config.json; override the model config; set rope_theta; patch the hugging face
        config; use another rope scaling; change config.json without editing it; enable yarn; overwrite max_position_embeddings""",
        nouns="""the model's config.json; hf overrides; overrides of the model config; rope scaling; yarn; the hugging face
        config; rope_theta; max_position_embeddings""",
        problems="""a value in the model's config.json is wrong; I want to try another rope scaling; the model folder is read
        only and its config.json has a mistake""",
        asks="can I override config.json; how do I change rope scaling; how do I patch the model config; does yarn work",
        keys="hf overrides; config.json; rope; rope scaling; yarn; model config; rope_theta; override config.json",
    ),
    option(
        "any-model-name",
        "lets requests name any model and get this one (otherwise another name is a 404).",
        "MODEL --any-model-name",
        goals="""accept any model name; ignore the model field; answer to every model name; take whatever model the client asks
        for; not check the model name; serve clients with a fixed model name; make the model field optional""",
        nouns="""any model name; model name checking; the check of the model name; arbitrary model names; unknown model names; a
        wildcard model name""",
        problems="""each of my clients asks for another model name; my client's model name cannot be changed; requests with wrong
        model names fail; I do not know which model name the program sends; every wrong name is a 404""",
        asks="""can clients send any model name; is the model name checked; can the model field be ignored; how do I turn off the
        check of the model name""",
        keys="any model name; any model; ignore model name; model name check; wildcard model; accept any name",
    ),
    option(
        "model",
        "names the model folder or hub id, like the word after serve; without it the demo model is served.",
        "--model Qwen/Qwen3-0.6B",
        nouns="the model option; the model flag; the --model argument; VSRV_MODEL",
        asks="""can the model be given as a flag; how do I name the model in the environment; which variable names the model; is
        there a flag for the model; can I set the model in the config file""",
        keys="--model; model flag; VSRV_MODEL; model option; model argument",
    ),
    refusal(
        "trust-remote-code",
        "is refused: vsrv never runs code that comes with a model; the supported architectures need none.",
        goals="""run code from the model repository; trust remote code; load a model with custom code; allow the model's python
        files; use modeling_custom.py""",
        nouns="remote code; custom model code; trust remote code; the model's own python code; code from the hub",
        problems="the model needs custom code; transformers asks me to trust remote code; the model has its own modeling file",
        asks="can it run code from the hub; is remote code executed; does it trust remote code; is code of a model ever run",
        keys="remote code; trust remote code; custom code; trust_remote_code; model code",
    ),
    refusal(
        "trust-request-chat-template",
        "is refused: a template is a program; put it into --chat-template.",
        goals="""send a chat template with the request; let clients bring their own chat template; use a template from the
        request body""",
        nouns="chat templates in requests; request templates; a chat template from the client; templates sent by clients",
        problems="my request has a chat_template field and is refused; clients want to send their own template",
        asks="can a request carry its own template; why is chat_template in the request refused",
        keys="request chat template; request template; client template; chat_template field",
    ),
)
