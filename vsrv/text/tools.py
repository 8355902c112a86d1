"""Tool calls in a model's text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of call `index` of one choice.

    The first delta of a call has its id and its name, and no arguments; the later ones have only arguments, which joined are JSON text.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
