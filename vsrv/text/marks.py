"""Marks in a text that comes in pieces: how much of its end may still become one."""

from __future__ import annotations

from collections.abc import Sequence


def unfinished(text: str, marks: Sequence[str]) -> int:
    """Length of the longest end of `text` that could still become one of `marks`."""
    longest = 0
    for mark in marks:
        for size in range(min(len(mark) - 1, len(text)), longest, -1):
            if text.endswith(mark[:size]):
                longest = size
                break
    return longest


def may_become(text: str, at: int, marks: Sequence[str]) -> bool:
    """Whether all that follows from `at` could be the beginning of one of `marks`."""
    return any(len(text) - at < len(mark) and mark.startswith(text[at : at + len(mark)]) for mark in marks)
