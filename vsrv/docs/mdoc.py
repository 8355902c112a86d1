"""The mdoc language, as far as the pages need it: mdoc(7). Lines are short and sentences begin on their own, as `mandoc -T lint` wants."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

_WIDTH = 78
# the end of a sentence, but not of an abbreviation such as "e.g."
_SENTENCE = re.compile(r"(?<=[A-Za-z0-9)\"`'][.?!]) +(?=[A-Z`\"(])")
_CODE = re.compile(r"`([^`]+)`")


def escaped(text: str) -> str:
    """Text that roff shows as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    text = text.replace("^", "\\(ha").replace("~", "\\(ti").replace("…", "...")
    return "".join(c if ord(c) < 128 else f"\\[u{ord(c):04X}]" for c in text)


def argument(text: str) -> str:
    """Text as one argument of a macro. `\\&` in front keeps a word from being taken for a macro or for punctuation."""
    made = escaped(text).replace('"', "\\(dq")
    return f'"\\&{made}"' if " " in made else f"\\&{made}"


def paragraph(text: str) -> list[str]:
    """Running text; what stands in `backticks` is shown as literal."""
    lines: list[str] = []
    for sentence in _SENTENCE.split(" ".join(text.split())):
        sentence = sentence if sentence.endswith((".", "?", "!", ":")) else sentence + "."
        first = sentence.split(maxsplit=1)[0]
        # a name such as system_fingerprint stays as it is
        lines += _wrapped(
            sentence[:1].upper() + sentence[1:]
            if first.rstrip(",;:.").isalpha() and first != "vsrv"
            else sentence
        )
    return lines


def _wrapped(sentence: str) -> list[str]:
    shown = escaped(_CODE.sub(lambda match: match[1].replace(" ", "\x00"), sentence))
    # a literal stays on one line: its spaces are unbreakable until the text is filled
    lines = textwrap.wrap(shown, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return [_shielded(line.replace("\x00", " ")) for line in lines]


def _shielded(line: str) -> str:
    return f"\\&{line}" if line.startswith((".", "\\(aq")) else line


def flag(name: str) -> str:
    """A flag's spelling as a macro: `--port` is `Fl -port`."""
    return f"Fl {argument(name[1:])}"


def items(rows: Iterable[tuple[str, Sequence[str]]], width: str = "Ds") -> list[str]:
    """A tagged list of (macros of the tag, lines of its text)."""
    lines = [f".Bl -tag -width {width}"]
    for tag, body in rows:
        lines += [f".It {tag}", *body]
    return [*lines, ".El"]


def example(text: str) -> list[str]:
    """Lines shown as they are, indented."""
    body = [_shielded(escaped(line)) if line else "\\&" for line in text.strip("\n").split("\n")]
    return [".Bd -literal -offset indent", *body, ".Ed"]


def page(title: str, section: int, date: str, body: Sequence[str]) -> str:
    """A whole page."""
    head = [
        '.\\" Made by `vsrv docs --write` from the option table; changes belong there.',
        f".Dd {date}",
        f".Dt {title} {section}",
        ".Os",
    ]
    return "\n".join([*head, *body]) + "\n"
