"""Makes questions: joins a Topic's pieces to sentences, varies the words, then adds the noise of real typing.

Everything is drawn from the `random.Random` that the caller passes, so one seed always gives the same questions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from vsrv.demo import offtopic
from vsrv.demo.topic import Topic, phrases
from vsrv.demo.words import DROPPABLE, GROUPS, MEMBERS, PATTERN, STOPWORDS

SLOTS: dict[str, tuple[str, ...]] = {
    "port": ("9000", "8080", "443", "80", "5000", "8001", "3000", "8443", "1234", "9999", "7860", "11434", "8888"),
    "n": tuple(str(n) for n in (*range(2, 13), 16, 20, 24, 25, 30, 32, 40, 50, 60, 64, 80, 100, 128, 200, 256, 500)),
    "big": ("4k", "8k", "16k", "32k", "64k", "128k", "2048", "4096", "8192", "16384", "32768", "100000", "100k", "1M"),
    "gb": ("1", "2", "4", "6", "8", "10", "12", "16", "20", "24", "40", "48", "64", "80"),
    "pct": ("10", "20", "30", "40", "50", "60", "70", "75", "80", "90", "95"),
    "temp": ("0", "0.1", "0.2", "0.3", "0.5", "0.6", "0.7", "0.8", "1", "1.2"),
    "path": ("/data", "/mnt/disk2", "/models", "/srv/llm", "my other drive", "D:", "/home/me/files", "/scratch", "the nas"),
    "file": ("vsrv.toml", "my.toml", "/etc/vsrv.toml", "config.toml", "a file", "settings.toml"),
    "prefix": ("/llm", "/ai", "/api", "/vsrv", "/chat", "/models", "/gpt"),
    "url": ("https://app.example", "http://localhost:3000", "https://my.site", "https://chat.example.com", "localhost:5173"),
    "domain": ("example.com", "my.company", "shop.example", "chat.example.org", "my domain", "our intranet"),
    "ip": ("192.168.1.20", "10.0.0.5", "172.17.0.2", "192.168.178.30", "10.1.2.3", "0.0.0.0"),
    "name": ("gpt-4", "gpt-4o", "gpt-3.5-turbo", "my-model", "default", "assistant", "llm", "chat", "prod"),
    "model": ("llama 3", "Qwen3", "Qwen/Qwen3-0.6B", "mistral 7b", "Llama-3.2-1B", "a 7B model", "qwen 2.5", "phi", "gemma",
              "meta-llama/Llama-3.1-8B", "./my-model", "a real model", "deepseek"),
    **offtopic.LISTS,
    "year": ("1492", "1789", "1815", "1914", "1945", "1969", "1989", "2001", "1066"),
}  # fmt: skip

GOAL_FRAMES = phrases("""
how do I {}; how can I {}; how to {}; how do you {}; how does one {}; how would I {}; how could I {}; how might one {};
how should I {}; what do I do to {}; what must I do to {}; what do I need to {}; what option do I need to {}; which
option do I use to {}; which flag lets me {}; which setting do I change to {}; which parameter is there to {}; what flag
is needed to {}; what is the flag to {}; what is the option to {}; what's the switch to {}; is there an option to {}; is
there a way to {}; is there a flag to {}; is there a setting to {}; is it possible to {}; can I {}; can you {}; can vsrv
{}; could I {}; am I able to {}; may I {}; I want to {}; I would like to {}; I'd like to {}; I need to {}; I have to {};
I'm trying to {}; we need to {}; we want to {}; my boss wants me to {}; my task is to {}; help me {}; help me to {};
please help me to {}; tell me how to {}; please tell me how to {}; show me how to {}; explain how to {}; I don't know
how to {}; any idea how to {}; do you know how to {}; could you tell me how to {}; {}; {} please; {} how; best way to {};
what is the best way to {}; what is the right way to {}; how do I make it {}; how can I get vsrv to {}; where do I {};
what do I have to pass to {}; what do I type to {}; what argument do I add to {}; what should I set to {}; I wish to {};
I am looking for a way to {}; looking for the option to {}; need to {}; want to {}; trying to {}; what would I use to
{}; what if I want to {}; suppose I want to {}; if I want to {}, what do I set; in order to {}, which flag do I need; to
{}, what do I do; give me the flag to {}; name the option to {}; I cannot figure out how to {}; I could not find how to
{}; with which option do I {}; by which flag can I {}; does vsrv let me {}; does it let me {}; can it {}; will it {}; does
it {}; how is it possible to {}; let me {}; make it {}; how do we {}; can we {}; what's the command to {}; command line
to {}; option to {}; flag to {}; what env var do I set to {}; which environment variable do I need to {}
""")

NOUN_FRAMES = phrases("""
how do I change {}; how do I set {}; how can I configure {}; what about {}; where do I set {}; where is {} set; which
option is for {}; which option sets {}; which option controls {}; which flag controls {}; what flag is for {}; what
controls {}; what determines {}; what sets {}; is there an option for {}; is there a setting for {}; is there a flag for
{}; do you have an option for {}; do you support {}; does vsrv support {}; does it support {}; does it have {}; can I
have {}; can I set {}; can I change {}; can I choose {}; tell me about {}; tell me something about {}; explain {}; I
need {}; I want {}; I want to change {}; I want to know about {}; I need to set {}; I have a question about {}; my
question is about {}; question about {}; information on {}; info about {}; help with {}; help me with {}; {}; {}?; {}
please; {} option; {} setting; {} flag; set {}; change {}; configure {}; configuring {}; changing {}; setting {}; how
does {} work; how do I use {}; how do I get {}; how do I work with {}; how is {} configured; what is the flag for {}; what
is the option for {}; what's the option for {}; what is the parameter for {}; which parameter changes {}; give me the
option for {}; show me the flag for {}; what do I use for {}; what do I set for {}; what do I have to know about {};
anything about {}; something for {}; and {}; how about {}; what can I do about {}; where can I find {}; where do I find
the setting for {}; who decides {}; how can {} be changed; can {} be changed; can {} be set; I am interested in {}; I am
asking about {}; I'm looking for {}; looking for {}; searching for {}; the option for {}; the flag for {}; command line
option for {}; which environment variable sets {}; environment variable for {}; env var for {}; what env var is for {};
I would like to adjust {}; how would you set {}; what is the default of {}; what does vsrv offer for {}; how is {} chosen
""")

PROBLEM_FRAMES = phrases("""
{}; {}; {}, what can I do; {}, what do I do; {}. what can I do?; {}. how do I fix that?; {}. which option helps?; {}.
which flag do I need?; {}. help; {}, please help; {}, help me; {}, how do I solve this; {}. what should I change?; {}.
can you help?; {}. any idea?; {} - what now?; {}. Is there an option for that?; {}. is there a flag?; {}, is there a
setting; {}, what option should I use; my problem: {}; problem: {}; the problem is that {}; it seems that {}; I noticed
that {}; why is it that {}; what do I do if {}; what if {}; what can be done when {}; what helps when {}; which option
helps if {}; how do I fix it when {}; sometimes {}; help, {}; hi, {}; since yesterday {}; I have an issue: {}; here {};
what to do if {}; {} and I do not know what to do; {}, which knob is it; {}, how can I change that; {}: solution?;
unfortunately {}; {}. How can this be changed?
""")

NAME_FRAMES = phrases("""
what does {} do; what does {} mean; what is {}; what is {} for; what's {}; what is the purpose of {}; explain {}; tell me
about {}; how do I use {}; when do I need {}; describe {}; {}; {}?; meaning of {}; {} meaning; {} example; give me an
example of {}; show me an example for {}; what can I do with {}; how does {} work; what is the option {} for; what about
{}; help {}; help on {}; {} option; the {} flag; what is {} good for; which values does {} take; why would I set {};
should I use {}; what happens with {}; is there a {} option; can I use {}; what effect does {} have; define {}; usage of {}
""")

KEY_FRAMES = phrases("""
{}; {}; {}; {}?; {} option; {} flag; {} setting; {} how; how {}; vsrv {}; {} vsrv; set {}; {} config; {} help; {} please;
option {}; flag {}; what about {}; {} parameter; {} env var; {} command line; {} server; configure {}; need {}; {} info
""")

LEADS = phrases("""
hi; hello; hey; hi there; good morning; please; sorry; excuse me; quick question; ok; so; well; one question; another
question; question; ok so; and; also; now; hey vsrv; hello vsrv; I am new to this; I am a beginner; I am new here; I just
installed vsrv; I run vsrv on my server; I am using vsrv; I have vsrv running; we use vsrv at work; we have a small
company; I have a small office; I am a teacher; I work for a school; I am writing a web app; I have a home server; I run
it on an old laptop; I started the server; I read the readme; I looked in the manual but did not find it; my boss asked
me; I am setting up a new machine; I just bought a machine; the server runs in docker; we have a kubernetes cluster; I am
on linux; I have a raspberry pi; my friend told me about vsrv; I come from vllm; in vllm there was a flag; in llama.cpp I
could do it; I have been trying for hours; sorry for the stupid question; this may be a dumb question; I do not know much
about computers; thank you for your help so far; I am deploying this for a customer; it is a nice server; I like vsrv; I
could not find it in the documentation; tell me; can you tell me; do you know; maybe you know; I wonder; just wondering;
I was wondering; let me ask; one more thing; next question; I have a {noun} shop; I run a {noun} company; I build a
{noun} app; it is for my {noun} project; I am a {job}; we are in {city}; my {noun} project uses vsrv
""")

TAILS = phrases("""
please; thanks; thank you; thanks in advance; in vsrv; with vsrv; in this server; on the server; on my server; here; for
me; exactly; by the way; if possible; somehow; when I start vsrv; at startup; on the command line; right now; again;
cheers; I need it today; it is urgent; as simple as possible; and how; any help is welcome; what do you say; ideas; in
production; at work; at home; for my {noun} project; for our {noun} shop; on linux; in docker; in short; step by step
""")

# Abbreviations that careful people write in capitals and quick ones in small letters.
CAPITALS = re.compile(
    r"\b(https?|tls|mtls|ssl|ca|cert|cors|api|ip|ipv6|tcp|url|lan|vpn|nic|cpu|gpu|vram|ram|kv|llm|json|toml|yaml|jinja|cuda"
    r"|vllm|oom|hf|ttft|fp16|bf16|fp32|sse|pem|id|os|dns|nas|ui|env|pid|io|vm|http2|ssd|nfs|k8s|aws|eos)(s?)\b",
    re.IGNORECASE,
)

KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def fill(text: str, rng: random.Random) -> str:
    """Replace every {slot} by a random member of its list."""
    return re.sub(r"\{(\w+)\}", lambda match: rng.choice(SLOTS[match[1]]), text)


def swap_words(text: str, rng: random.Random, rate: float) -> str:
    """Replace expressions by others of the same group, each with probability `rate`."""

    def replace(match: re.Match[str]) -> str:
        if rng.random() >= rate:
            return match[0]
        return rng.choice(GROUPS[rng.choice(MEMBERS[match[1]])])

    return PATTERN.sub(replace, text)


def question(topic: Topic, rng: random.Random) -> str:
    """One question about `topic`, with noise."""
    makers: list[tuple[float, Callable[[], str]]] = [
        (1.0 + 0.02 * len(topic.asks), lambda: fill(rng.choice(topic.asks), rng))
    ]
    if topic.goals:
        makers.append((1.6, lambda: _framed(rng.choice(topic.goals), GOAL_FRAMES, rng)))
    if topic.nouns:
        makers.append((1.0, lambda: _framed(rng.choice(topic.nouns), NOUN_FRAMES, rng)))
    if topic.problems:
        makers.append((1.0, lambda: _framed(rng.choice(topic.problems), PROBLEM_FRAMES, rng)))
    if topic.keys:
        makers.append((0.45, lambda: _keywords(topic, rng)))
        makers.append((0.25, lambda: _framed(rng.choice(topic.keys), KEY_FRAMES, rng)))
        makers.append((0.35, lambda: _telegram(topic, rng)))
    if topic.is_option:
        makers.append((0.5, lambda: _framed(_spelling(topic, rng), NAME_FRAMES, rng)))
    elif topic.asks and not topic.goals:
        makers = [(1.0, makers[0][1])]
    maker = rng.choices([m for _, m in makers], [w for w, _ in makers])[0]
    return _noisy(maker(), rng)


def offtopic_question(rng: random.Random) -> str:
    """One question that is not about vsrv, in the same frames and with the same noise."""
    draw = rng.random()
    if draw < 0.12:
        text = fill(rng.choice(offtopic.DECOYS), rng)
    elif draw < 0.5:
        text = fill(rng.choice(offtopic.WHOLE), rng)
    elif draw < 0.75:
        text = _framed(rng.choice(offtopic.GOALS), GOAL_FRAMES, rng)
    elif draw < 0.9:
        text = _framed(_thing(rng), rng.choice((NOUN_FRAMES, NAME_FRAMES)), rng)
    elif draw < 0.95:
        text = " ".join(_thing(rng) for _ in range(rng.randint(1, 4)))
    else:
        text = (
            "".join(rng.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(rng.randint(2, 24))).strip()
            or "zzz"
        )
    return _noisy(text, rng)


def _thing(rng: random.Random) -> str:
    word = rng.choice(SLOTS[rng.choice(tuple(offtopic.LISTS))])
    return rng.choice(("{}", "a {}", "the {}", "my {}", "this {}", "some {}")).format(word)


def _framed(piece: str, frames: Sequence[str], rng: random.Random) -> str:
    return rng.choice(frames).replace("{}", fill(piece, rng))


def _spelling(topic: Topic, rng: random.Random) -> str:
    name = topic.name
    return rng.choice(
        (f"--{name}", f"--{name}", name, name.replace("-", "_"), name.replace("-", " "), topic.variable)
    )


def _keywords(topic: Topic, rng: random.Random) -> str:
    picked = [fill(key, rng) for key in rng.sample(topic.keys, min(len(topic.keys), rng.randint(1, 4)))]
    return " ".join(picked)


def _telegram(topic: Topic, rng: random.Random) -> str:
    """The content words of a phrase alone, sometimes out of order: how people type into a search box."""
    source = fill(rng.choice(topic.goals + topic.nouns + topic.problems + topic.asks), rng)
    words = [word for word in source.replace(",", "").split() if word.lower() not in STOPWORDS]
    if rng.random() < 0.3:
        rng.shuffle(words)
    return " ".join(words) or source


def _noisy(text: str, rng: random.Random) -> str:
    text = swap_words(text, rng, rng.choice((0.0, 0.15, 0.35)))
    if rng.random() < 0.16:
        text = fill(rng.choice(LEADS), rng) + rng.choice((". ", ", ", " ", ": ", "! ")) + text
    if rng.random() < 0.10:
        text = text.rstrip("?.! ") + rng.choice((" ", ", ")) + fill(rng.choice(TAILS), rng)
    words = text.split()
    if rng.random() < 0.25 and len(words) > 3:
        words = [w for w in words if w.lower() not in DROPPABLE or rng.random() < 0.6] or words
    if rng.random() < 0.06 and len(words) > 4:
        del words[rng.randrange(len(words))]
    if rng.random() < 0.12 and len(words) > 5:  # no single word may decide
        words = [word for word in words if rng.random() < 0.85] or words
    if rng.random() < 0.25:
        rate = rng.choice((0.06, 0.12, 0.25))
        words = [_typo(w, rng) if rng.random() < rate else w for w in words]
    return _dressed(" ".join(words), rng)


def _dressed(text: str, rng: random.Random) -> str:
    """Letter case and the mark at the end."""
    text = text.rstrip("?.! ") or text
    draw = rng.random()
    if draw < 0.45:
        text = text[:1].upper() + text[1:]
        text = re.sub(r"([.!?] )([a-z])", lambda m: m[1] + m[2].upper(), text)
    elif draw < 0.80:
        text = text.lower()
    elif draw < 0.85:
        text = text.upper()
    elif draw < 0.88:
        text = text.title()
    if rng.random() < 0.35:
        text = CAPITALS.sub(lambda m: m[1].upper() + m[2], text)
    return text + rng.choices(("?", "", ".", "!", "??", " ?", "..."), (50, 34, 9, 3, 2, 2, 1))[0]


def _typo(word: str, rng: random.Random) -> str:
    if len(word) < 4 or not word.isalpha():
        return word
    at = rng.randrange(len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    if kind == 2:
        return word[:at] + word[at] + word[at:]
    return word[:at] + _neighbour(word[at].lower(), rng) + word[at + 1 :]


def _neighbour(letter: str, rng: random.Random) -> str:
    for row in KEYBOARD:
        at = row.find(letter)
        if at >= 0:
            return row[max(0, min(len(row) - 1, at + rng.choice((-1, 1))))]
    return letter
