"""Makes the conversations that the demo model is trained on: system prompts, several turns, follow-up questions."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from vsrv.demo.phrasing import SLOTS, fill, offtopic_question, question, swap_words
from vsrv.demo.smalltalk import TALK, UNKNOWN
from vsrv.demo.topic import Topic, phrases
from vsrv.demo.topics_access import ACCESS
from vsrv.demo.topics_chat import CHAT
from vsrv.demo.topics_commands import COMMANDS
from vsrv.demo.topics_engine import ENGINE
from vsrv.demo.topics_limits import LIMITS
from vsrv.demo.topics_model import MODEL
from vsrv.demo.topics_network import NETWORK
from vsrv.demo.topics_operation import OPERATION
from vsrv.demo.voices import VOICES
from vsrv.demo.voices_access import ACCESS_VOICES
from vsrv.demo.voices_commands import COMMAND_VOICES
from vsrv.demo.voices_engine import ENGINE_VOICES
from vsrv.demo.voices_model import MODEL_VOICES
from vsrv.demo.voices_more import MORE_VOICES
from vsrv.demo.voices_network import NETWORK_VOICES
from vsrv.demo.voices_service import SERVICE_VOICES

_ALL_VOICES = (
    VOICES,
    SERVICE_VOICES,
    MORE_VOICES,
    NETWORK_VOICES,
    ACCESS_VOICES,
    ENGINE_VOICES,
    MODEL_VOICES,
    COMMAND_VOICES,
)


def _with_voices(*topics: Topic) -> tuple[Topic, ...]:
    return tuple(
        replace(topic, asks=sum((voices.get(topic.name, ()) for voices in _ALL_VOICES), topic.asks))
        for topic in topics
    )


OPTIONS = _with_voices(*NETWORK, *ACCESS, *LIMITS, *ENGINE, *MODEL, *CHAT, *OPERATION)
TOPICS = OPTIONS + _with_voices(*COMMANDS) + TALK

OFFTOPIC_SHARE = 0.22

SYSTEM_PROMPTS = phrases("""
You are a helpful assistant.; You are a helpful assistant; You are a friendly assistant who answers briefly.; Answer in
one sentence.; Be concise.; You are an expert on servers.; You are ChatGPT, a large language model.; You answer questions
about vsrv.; Be polite.; You are a pirate.; Answer in English.; You are a support agent of our company.; Do not make
things up.; You are a coding assistant.; Think step by step.; Today is Monday.; You are {name}.; You are a {job}.; Use
plain text.; Always answer truthfully.; You help users with their computers.; Keep answers short and friendly.; The user
is a {job} from {city}.; Never talk about {noun}.; Answer like a {job}.; You are a helpful, respectful and honest
assistant. Always answer as helpfully as possible.
""")

BY_ENVIRONMENT = phrases("""
and how do I do that by environment variable; as environment variable; and as an environment variable; what is the
environment variable; which environment variable is that; how do I set it with an environment variable; can I set it in
the environment; env var; and the env var; environment variable; what about the environment variable; is there an env var
for it; how do I do that with an env var; and in docker with an environment variable; can I do that by environment
variable; what is the name of the variable; which variable is it; I prefer environment variables; through the environment
""")

BY_EXAMPLE = phrases("""
give me an example; example; an example please; show me an example; how do I write that; what does the command look like;
show me the command; can you give me an example; and the whole command; how do I type it; what is the full command;
for example; how exactly; what do I type; please show the command line; how does the command line look
""")


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A training sample; `system` is empty when there is no system prompt."""

    system: str
    turns: tuple[Turn, ...]


def environment_answer(topic: Topic) -> str:
    """The answer to "and by environment variable?" after `topic`."""
    return f"As environment variable: {topic.variable}={_value(topic)}"


def _value(topic: Topic) -> str:
    words = topic.example.split()
    for flag, value in zip(words, [*words[1:], "--"], strict=True):
        if flag == f"--{topic.name}" and not value.startswith("--"):
            return " ".join(words[words.index(flag) + 1 :]) if value.startswith("'") else value
        if flag == f"--no-{topic.name}":
            return "0"
    return "1"


def make_turn(rng: random.Random) -> tuple[Turn, Topic | None]:
    """A first question with its answer, and the topic (None: off topic)."""
    if rng.random() < OFFTOPIC_SHARE:
        return Turn(offtopic_question(rng), UNKNOWN), None
    topic = rng.choices(TOPICS, [topic.weight for topic in TOPICS])[0]
    return Turn(question(topic, rng), topic.reply), topic


def follow_up(topic: Topic, rng: random.Random) -> Turn:
    """A question that can only be understood from the turn before it."""
    if rng.random() < 0.5:
        asked, answer = rng.choice(BY_ENVIRONMENT), environment_answer(topic)
    else:
        asked, answer = rng.choice(BY_EXAMPLE), f"Example: {topic.example}"
    asked = swap_words(asked, rng, 0.1)
    if rng.random() < 0.5:
        asked = asked[:1].upper() + asked[1:]
    return Turn(asked + rng.choice(("?", "", ".", "?")), answer)


def make_dialogue(rng: random.Random, long: bool = False) -> Dialogue:
    """A conversation of one turn (mostly), or of up to 16 turns if `long`."""
    system = fill(rng.choice(SYSTEM_PROMPTS), rng) if rng.random() < 0.25 else ""
    turns: list[Turn] = []
    count = rng.randint(4, 16) if long else rng.choices((1, 2, 3), (80, 15, 5))[0]
    while len(turns) < count:
        turn, topic = make_turn(rng)
        turns.append(turn)
        if topic is not None and topic.example and count > 1 and rng.random() < 0.45:
            turns.append(follow_up(topic, rng))
    return Dialogue(system, tuple(turns))


def vocabulary_sample(rng: random.Random, count: int) -> list[str]:
    """Texts from which the tokenizer learns its vocabulary: answers, questions and every word of the lists."""
    texts = [topic.reply for topic in TOPICS for _ in range(12)] + [UNKNOWN] * 12
    texts += [environment_answer(topic) for topic in OPTIONS if topic.example for _ in range(6)]
    texts += [word for words in SLOTS.values() for word in words]
    for _ in range(count):
        turn, _topic = make_turn(rng)
        texts.append(turn.question)
    return texts
