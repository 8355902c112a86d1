"""How many held-out questions the demo model answers with the right option: python -m vsrv.demo.evaluate [--model DIR | --url URL]

heldout.tsv was written apart from the generator: lines of accepted options (alternatives after |, - = must be declined), TAB, question.
"""

from __future__ import annotations

import argparse
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

from vsrv.demo.smalltalk import DECLINED

HELDOUT = Path(__file__).with_name("heldout.tsv")


def read_questions(path: Path) -> list[tuple[tuple[str, ...], str]]:
    """[(accepted options, question)]; no accepted option means that it must be declined."""
    rows = []
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            names, _, asked = line.partition("\t")
            rows.append((() if names == "-" else tuple(names.split("|")), asked))
    return rows


def is_right(accepted: tuple[str, ...], answer: str) -> bool:
    """The answer begins with an accepted option, or declines where it must."""
    if not accepted:
        return answer.startswith(DECLINED)
    words = answer.split()
    return bool(words) and words[0].removeprefix("--") in accepted


def ask_server(url: str) -> Callable[[str], str]:
    """Ask over HTTP, greedily."""

    def ask(question: str) -> str:
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 120}
        request = urllib.request.Request(
            f"{url.rstrip('/')}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            text: str = json.load(response)["choices"][0]["message"]["content"]
            return text

    return ask


def ask_folder(folder: Path) -> Callable[[str], str]:
    """Run the network of train.py on a model folder, greedily."""
    import torch
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    from vsrv.demo.train import Network, Shape

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    network = Network(Shape()).eval()
    network.load_state_dict({n.removeprefix("model."): t.float() for n, t in load_file(str(folder / "model.safetensors")).items()})

    def ask(question: str) -> str:
        ids = tokenizer.encode(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n").ids
        start = len(ids)
        with torch.inference_mode():
            while len(ids) - start < 24:
                token = int(network(torch.tensor([ids]))[0, -1].argmax())
                if token == 2:
                    break
                ids.append(token)
        return str(tokenizer.decode(ids[start:]))

    return ask


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the demo model on held-out questions.")
    parser.add_argument("--url", help="ask a running server")
    parser.add_argument("--model", type=Path, default=Path(__file__).parent, help="or this folder (default: the embedded model)")
    parser.add_argument("--questions", type=Path, default=HELDOUT)
    arguments = parser.parse_args()
    ask = ask_server(arguments.url) if arguments.url else ask_folder(arguments.model)
    right = {True: 0, False: 0}  # by whether an option was asked for
    total = {True: 0, False: 0}
    for accepted, question in read_questions(arguments.questions):
        answer = ask(question)
        total[bool(accepted)] += 1
        if is_right(accepted, answer):
            right[bool(accepted)] += 1
        else:
            print(f"missed: {question!r} wants {' or '.join(accepted) or 'no option'}, got {answer[:60]!r}")
    print(f"right option: {right[True]} of {total[True]} ({right[True] / max(1, total[True]):.0%})")
    print(f"declined what it cannot know: {right[False]} of {total[False]} ({right[False] / max(1, total[False]):.0%})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
