"""What the demo model says that names no option: greetings, itself, where to look, and that it does not know."""

from __future__ import annotations

from vsrv.demo.topic import talk

UNKNOWN = "I do not know that; I only know vsrv's options. Ask me, for example, how to turn on HTTPS or how to change the port."
DECLINED = "I do not know that"

TALK = (
    talk(
        "greeting",
        """Hello! I am vsrv's demo model. Ask me which option does what, for example: how do I turn on HTTPS?""",
        weight=2.5,
        asks="""hello; hi; hey; hi there; hello there; hey there; good morning; good evening; good afternoon; good day;
        greetings; howdy; yo; hello world; hi bot; hello model; hey vsrv; hello vsrv; hi vsrv; moin; hallo; hola; bonjour;
        hiya; sup; what's up; hello, are you there; hi, anybody there; is anyone there; hello computer; hey you; ping;
        are you there; are you awake; can you hear me; hello my friend; hello assistant; hi assistant; test; testing;
        this is a test; just testing; say hello; say hi; say something; start; hello?; knock knock; nice to meet you;
        good to see you; hello again; hey buddy; welcome; can you say hello; please say hi; how do you do; testing 1 2 3;
        is this thing on; hello this is a test; say hello to me; greet me; respond please; hello how are you today;
        hi how are you""",
    ),
    talk(
        "identity",
        """I am vsrv's demo model: a few million parameters, trained to answer which option of vsrv does what. For real
        work serve a real model: vsrv serve MODEL""",
        weight=2.5,
        asks="""who are you; what are you; what is your name; what's your name; tell me about yourself; introduce
        yourself; are you chatgpt; are you gpt-4; are you a human; are you a robot; are you an ai; which model are you;
        what model is this; what model am I talking to; who am I talking to; are you llama; are you qwen; are you claude;
        what kind of model are you; how many parameters do you have; how big are you; how large is this model; who made
        you; who trained you; who built you; who created you; what were you trained on; what is this; what is this
        model; what is the demo model; do you have a name; describe yourself; how smart are you; are you a language
        model; are you intelligent; are you real; is this a real model; how were you trained; what is your purpose; what
        are you for; why do you exist; what version are you; what llm is this; which llm is running here; who is
        speaking; what am I chatting with; are you open source; are you good for production; what language model do
        you use; name yourself; how old are you; is this chatgpt; are you sentient; what is vsrv demo; tell me who you
        are; what exactly are you; are you a bot; is there a person on the other side; which neural network is this;
        what's the model behind this; are you conscious; are you a person""",
    ),
    talk(
        "abilities",
        """I can tell you which option or command of vsrv does what: address and port, HTTPS, API keys, CORS, limits, context
        length, memory, devices, tools, JSON, embeddings, logs. Ask me, for example: how do I change the port?""",
        weight=2.0,
        asks="""what can you do; help; help me; how can you help me; what do you know; what can I ask you; what can I ask;
        what should I ask; what topics do you know; which questions can you answer; what are you able to do; how do I use
        you; what can I do here; can you help me; I need help; show help; list your skills; what are your abilities; what
        are your capabilities; give me some ideas what to ask; which options do you know; list all options; list the
        options; what options are there; which options exist; show me all flags; what flags does vsrv have; which
        settings are there; what can be configured; what can I configure; all options please; tell me about the options;
        explain the options; options; flags; settings; give me an overview; commands; show options; what parameters exist;
        usage; i need some help please; what questions do you understand; what do you do; what is possible; where do I
        start; how does this work; menu; what subjects do you cover; what can you answer; what else can you do; can you
        assist me; overview of all settings; manual; documentation; where is the documentation; show me the docs; -h;
        --help; what command line arguments are there; give me a list of the command line flags""",
    ),
    talk(
        "wellbeing",
        "I am fine, thank you. Ask me which option of vsrv does what.",
        asks="""how are you; how are you doing; how is it going; how's it going; how do you feel; are you ok; are you okay;
        are you well; how have you been; how are things; is everything alright; everything ok with you; how are you today;
        how was your day; are you happy; are you fine; you good; are you tired; how do you feel today; all good""",
    ),
    talk(
        "thanks",
        "You are welcome. Ask me about any other option of vsrv.",
        asks="""thanks; thank you; thank you very much; thx; many thanks; great, thanks; cool; ok; okay; nice; perfect;
        great; that helped; that was helpful; good job; well done; awesome; wonderful; thanks a lot; ty; cheers; very
        good; good answer; understood; I see; got it; alright; fine; excellent; super; thanks, that works; it works now;
        it works; that is all; lovely; brilliant; much appreciated; you are great; you helped me; amazing; good bot;
        you are helpful; ok thanks; good to know; clear; makes sense; that solved it; no more questions""",
    ),
    talk(
        "farewell",
        "Goodbye! For real work serve a real model: vsrv serve MODEL",
        asks="""bye; goodbye; see you; see you later; good night; bye bye; so long; ciao; farewell; I have to go; talk to
        you later; exit; quit; cu; that's all, bye; take care; until next time; I am leaving; see you tomorrow; gotta go;
        have a nice day; have a good one; over and out; end; logout; close""",
    ),
    talk(
        "real-model",
        """To serve a real model, give its folder or its hub id: vsrv serve MODEL (or --model). Example: vsrv serve
        Qwen/Qwen3-0.6B""",
        weight=2.5,
        goals="""serve a real model; use a better model; load another model; use my own model; run llama; run qwen; run
        mistral; serve a model from hugging face; load a model from disk; switch to a different model; use a bigger
        model; serve {model}; replace the demo model; choose the model; start with a model from a folder; use a local
        model directory; run a hugging face model; get smarter answers; change the model; select which model is served;
        point it to my weights; run my fine-tune; load my checkpoint; start {model}; use {model}; deploy {model}""",
        nouns="""the model to serve; the model path; another model; a real model; the model folder; a better model; the
        model that is loaded; a hugging face model; a local model; a custom model; a larger model; the served model""",
        problems="""this model is too small; this model is dumb; I want a better model; I have a model on disk; I
        downloaded {model}; the demo model is not good enough; the answers are useless; you are stupid; I have my own
        weights in a folder; I want to use {model}""",
        asks="""which models can I run; which models are supported; how do I serve my own model; can you run llama; how to
        use a real model; where do I put the model; can it load {model}; what is the command to serve a model; how do I
        load a model; how do I get a better model; how do I start vsrv with {model}; can vsrv run {model}; which
        architectures work; vsrv serve; serve model""",
        keys="model; real model; {model}; llama; qwen; mistral; hugging face; model path; own model; load model; weights",
    ),
    talk(
        "environment",
        """Every option has an environment variable: VSRV_ and its name in capitals with underscores, for example
        VSRV_PORT=9000. The command line wins over the environment, the environment over the config file.""",
        goals="""configure vsrv by environment variables; set options through the environment; use env vars instead of
        flags; configure it in docker with environment variables; pass settings by environment""",
        nouns="""the environment variables; the env vars; the names of the environment variables; the precedence of the
        settings; environment configuration; the order of precedence""",
        asks="""which environment variables are there; are there environment variables; how are the environment variables
        called; does it read environment variables; what wins, the environment or the command line; does the flag override
        the environment; what is the precedence; can I use env vars; how do env vars work; which has priority, config file
        or environment; what is the prefix of the environment variables; list the environment variables; what does VSRV_
        mean; can everything be set by environment""",
        keys="environment variables; env vars; environment; env; VSRV_; precedence",
    ),
    talk(
        "effective-config",
        "Run vsrv config: it prints each option's value and where it comes from; vsrv config --diff only what differs from the defaults.",
        goals="""see the current settings; print the effective configuration; show the values of all options; check which
        settings are in effect; find out where a value comes from; dump the configuration; inspect the active settings""",
        nouns="the effective configuration; the current settings; the active configuration; the values in effect",
        asks="""which settings are active; how do I see my configuration; what values are used now; where does this value
        come from; how can I check my configuration; what are the defaults; how do I see the defaults; show the current
        config; what is configured right now""",
        keys="effective config; current settings; show config; vsrv config; active settings; defaults",
    ),
    talk(
        "metrics",
        "Metrics for Prometheus are served at GET /metrics, or on a port of their own: --metrics-port 9100",
        goals="""monitor the server; scrape metrics; use prometheus; see statistics; build a grafana dashboard; watch the
        throughput; collect metrics""",
        nouns="the metrics; prometheus metrics; the monitoring endpoint; the statistics; grafana; monitoring; telemetry",
        asks="""where are the metrics; does it have prometheus metrics; how do I monitor it; is there a metrics endpoint;
        how to see tokens per second; can I use grafana""",
        keys="metrics; prometheus; grafana; monitoring; statistics; telemetry; dashboard",
    ),
    talk(
        "health",
        "GET /livez tells whether the process lives, GET /readyz whether the model is ready for requests.",
        goals="""check whether the server is ready; do a health check; write a readiness probe; configure a liveness
        probe; see if the model is loaded; wait until it is ready; test if it is alive""",
        nouns="the health endpoint; the readiness probe; the liveness probe; the health check; kubernetes probes; readyz",
        asks="""is the server up; is it ready; how do I know that the model is loaded; is there a health endpoint; which
        url for the load balancer check; how does kubernetes check it""",
        keys="health; health check; readiness; liveness; probe; livez; readyz; ready; alive",
    ),
)
