"""The form in which the demo model's knowledge is written down: one Topic per option or piece of small talk."""

from __future__ import annotations

from dataclasses import dataclass


def phrases(text: str) -> tuple[str, ...]:
    """Split a block of phrases at its semicolons; line breaks and indentation do not count."""
    return tuple(part for part in (" ".join(piece.split()) for piece in text.split(";")) if part)


@dataclass(frozen=True, slots=True)
class Topic:
    """What can be asked about one thing, in pieces that `phrasing.py` joins to questions.

    goals: bare infinitives ("change the port"); nouns: noun phrases ("the port number"); problems: statements;
    asks: whole questions; keys: single search words. Words in braces are filled from `phrasing.SLOTS`.
    """

    name: str
    answer: str
    example: str = ""
    goals: tuple[str, ...] = ()
    nouns: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    is_option: bool = True
    refused: bool = False
    weight: float = 1.0

    @property
    def variable(self) -> str:
        """The environment form of the option."""
        return "VSRV_" + self.name.upper().replace("-", "_")

    @property
    def reply(self) -> str:
        """The whole answer of the model."""
        if not self.is_option:
            return self.answer
        if self.refused:
            return f"--{self.name} {self.answer}"
        return f"--{self.name} {self.answer} Environment: {self.variable}. Example: {self.example}"


def option(name: str, answer: str, example: str, **lists: str) -> Topic:
    """A Topic for the option `name`; `lists` are blocks of phrases by field name, `example` the arguments."""
    return Topic(
        name,
        " ".join(answer.split()),
        f"vsrv serve {example}",
        **{field: phrases(block) for field, block in lists.items()},  # type: ignore[arg-type]
    )


def refusal(name: str, answer: str, **lists: str) -> Topic:
    """A Topic for an option that people know from elsewhere and that vsrv refuses or does not need to be told."""
    return Topic(
        name,
        " ".join(answer.split()),
        refused=True,
        weight=0.7,
        **{field: phrases(block) for field, block in lists.items()},  # type: ignore[arg-type]
    )


def talk(name: str, answer: str, weight: float = 1.0, **lists: str) -> Topic:
    """A Topic that is answered with a fixed sentence and names no option."""
    return Topic(
        name,
        " ".join(answer.split()),
        is_option=False,
        weight=weight,
        **{field: phrases(block) for field, block in lists.items()},  # type: ignore[arg-type]
    )
