"""Measures the demo model: which share of the questions gets an answer that names the right option.

    python -m vsrv.demo.evaluate                                  the model in the package, computed here with torch
    python -m vsrv.demo.evaluate --model DIR                      another folder
    python -m vsrv.demo.evaluate --url http://127.0.0.1:8000      a running server (needs no torch)

Questions come from lines of `option-name<TAB>question`; `a|b` where either option is a right answer, and `-` where the
model must say that it does not know. In the place of an option there may be a subject of SUBJECTS, such as a command.
Lines that are empty or start with `#` do not count. The questions of heldout.tsv were not used to make the training data.
An answer is right when it names the option as a flag (--option), a subject by its text; "first" counts those that begin
with it: no other flag is before it. A question that must be declined is right when the answer says so and names no option.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import sys
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vsrv.demo import model_path
from vsrv.demo.smalltalk import DECLINED

OFF_TOPIC = "-"
FLAG = re.compile(r"--([a-z0-9][a-z0-9-]*)")
COMMANDS = "setup check chat complete run-batch keys cert bench docs completion".split()

# what is no option, and the text by which an answer names it
SUBJECTS = {command: re.compile(rf"\bvsrv(?:\.pyz)? {command}(?![\w-])") for command in COMMANDS} | {
    "settings": re.compile(r"\bvsrv(?:\.pyz)? config(?![\w-])"),  # `config` is the option
    "tools": re.compile(r"`tools`|\btool_choice\b|/v1/chat/completions\b"),
    "structured": re.compile(r"\b(?:response_format|structured_outputs)\b"),
    "embeddings": re.compile(r"/v1/embeddings\b"),
    "messages": re.compile(r"/v1/messages\b"),
    "responses": re.compile(r"/v1/responses\b"),
    "systemd": re.compile(r"\bsystem(?:d|ctl)\b|\bvsrv@"),
    "balancing": re.compile(
        r"\b(?:nginx|haproxy|load balanc\w+|several (?:instances|servers))\b", re.IGNORECASE
    ),
    "zipapp": re.compile(r"\bbuild_zipapp\b|\.pyz\b"),
}
ANSWER_LIMIT = 96
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """A question and the options and subjects of which its answer must name one (neither: it must decline)."""

    options: tuple[str, ...]
    question: str
    subjects: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What the report calls the case."""
        return " or ".join((*self.options, *self.subjects)) or "(off topic)"

    @property
    def on_topic(self) -> bool:
        """Whether there is something to name."""
        return bool(self.options or self.subjects)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A case with what the model said; `first`: the answer begins with the option (or declines)."""

    case: Case
    answer: str
    right: bool
    first: bool


def read_cases(path: Path) -> list[Case]:
    """The questions of a file. Raises ValueError naming the line that has no tab."""
    cases: list[Case] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        names, tab, question = line.partition("\t")
        if not tab or not question.strip():
            raise ValueError(f"{path}, line {number}: expected option-name<TAB>question")
        wanted = [] if names.strip() == OFF_TOPIC else [name.strip() for name in names.split("|")]
        options = tuple(name for name in wanted if name not in SUBJECTS)
        cases.append(Case(options, question.strip(), tuple(name for name in wanted if name in SUBJECTS)))
    return cases


def judge(case: Case, answer: str) -> Verdict:
    """Compare the flags and subjects that an answer names with what was wanted."""
    flags = [(found.start(), found[1].removeprefix("no-")) for found in FLAG.finditer(answer)]
    if not case.on_topic:
        right = DECLINED in answer and not flags
        return Verdict(case, answer, right, right)
    wanted = [start for start, flag in flags if flag in case.options]
    wanted += [found.start() for subject in case.subjects if (found := SUBJECTS[subject].search(answer))]
    first = bool(wanted) and not any(s < min(wanted) for s, _ in flags)
    return Verdict(case, answer, bool(wanted), first)


def report(verdicts: list[Verdict]) -> str:
    """The figures by option, the misses, and the totals."""
    lines: list[str] = []
    for title in sorted({verdict.case.title for verdict in verdicts}):
        own = [verdict for verdict in verdicts if verdict.case.title == title]
        lines.append(f"{title:32} {sum(v.right for v in own):3} of {len(own)}")
    misses = [verdict for verdict in verdicts if not verdict.right]
    lines += ["", "missed:"] if misses else []
    lines += [f"  {v.case.title}: {v.case.question}\n      {v.answer}" for v in misses]
    on_topic = [v for v in verdicts if v.case.on_topic]
    off_topic = [v for v in verdicts if not v.case.on_topic]
    lines += ["", f"right option named: {_share([v.right for v in on_topic])}"]
    lines += [f"right option named first: {_share([v.first for v in on_topic])}"]
    lines += [f"off topic declined: {_share([v.right for v in off_topic])}"]
    lines += [f"all: {_share([v.right for v in verdicts])}"]
    return "\n".join(lines)


def _share(values: list[bool]) -> str:
    return f"{sum(values)} of {len(values)} ({sum(values) / max(1, len(values)):.1%})"


def local_answerer(folder: Path) -> Callable[[str], str]:
    """Answers computed in this process by the training network."""
    import torch
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    from vsrv.demo.network import Network, Shape, generate
    from vsrv.demo.tokens import Encoder

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    network = Network(Shape.from_config(config)).eval()
    weights = load_file(folder / "model.safetensors")
    network.load_state_dict({name.removeprefix("model."): w.to(torch.float32) for name, w in weights.items()})
    encoder = Encoder(Tokenizer.from_file(str(folder / "tokenizer.json")))

    def answer(question: str) -> str:
        ids = generate(network, encoder.prompt([("user", question)]), encoder.end, ANSWER_LIMIT)
        return str(encoder.tokenizer.decode(ids))

    return answer


def remote_answerer(url: str, key: str | None) -> Callable[[str], str]:
    """Answers of a running server, through /v1/chat/completions. Raises OSError or RuntimeError when it fails."""
    parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise ValueError(f"not an http address: {url}")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    prefix = parts.path.rstrip("/").removesuffix("/v1")
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"

    def ask(method: str, path: str, body: str | None = None) -> dict[str, object]:
        connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        try:
            connection.request(method, prefix + path, body, headers)
            reply = connection.getresponse()
            text = reply.read()
        finally:
            connection.close()
        if reply.status != 200:
            raise RuntimeError(f"{method} {path}: HTTP {reply.status}: {text[:300].decode(errors='replace')}")
        value: dict[str, object] = json.loads(text)
        return value

    name = ask("GET", "/v1/models")["data"][0]["id"]  # type: ignore[index]

    def answer(question: str) -> str:
        body = {
            "model": name,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": ANSWER_LIMIT,
        }
        reply = ask("POST", "/v1/chat/completions", json.dumps(body))
        return str(reply["choices"][0]["message"]["content"])  # type: ignore[index]

    return answer


def main(argv: list[str] | None = None) -> int:
    """Command line; the exit status is 0 when the share of right answers reaches --at-least."""
    parser = argparse.ArgumentParser(description="measure vsrv's demo model")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", help="a running server; the key is taken from VSRV_API_KEY")
    where.add_argument("--model", type=Path, help="a model folder; default: the model in the package")
    parser.add_argument("--questions", type=Path, help="default: the held-out questions in the package")
    parser.add_argument(
        "--at-least", type=float, default=0.0, metavar="SHARE", help="fail below this share, 0 to 1"
    )
    given = parser.parse_args(argv)
    folder = model_path()
    cases = read_cases(given.questions or folder / "heldout.tsv")
    if given.url:
        answer = remote_answerer(given.url, os.environ.get("VSRV_API_KEY"))
    else:
        answer = local_answerer(given.model or folder)
    verdicts = [judge(case, answer(case.question)) for case in cases]
    print(report(verdicts))
    return 0 if sum(v.right for v in verdicts) >= given.at_least * len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
