"""What a run has found: cases, figures and facts as they happen (JSON lines between processes), and as a table and a file at the end."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Event = dict[str, Any]
RESULTS = Path(__file__).resolve().parent.parent / "bench" / "results"


class Recorder:
    """Appends events to a file, each complete when `write` returns: the process may be killed at any time."""

    def __init__(self, path: Path, part: str) -> None:
        self._path, self._part = path, part

    def write(self, kind: str, **values: Any) -> None:
        line = json.dumps({"kind": kind, "part": self._part, **values}, default=str)
        with open(self._path, "a") as file:
            file.write(line + "\n")

    def fact(self, name: str, value: Any) -> None:
        say(f"  {name}: {value}")
        self.write("fact", name=name, value=value)

    def note(self, text: str) -> None:
        say(f"  note: {text}")
        self.write("note", text=text)

    def figure(
        self,
        name: str,
        value: float,
        unit: str,
        must: float | None = None,
        aim: float | None = None,
        lower: bool = False,
    ) -> None:
        """A measured value; `must` and `aim` are the issue's bars, met from above unless `lower`."""
        event = {"name": name, "value": value, "unit": unit, "must": must, "aim": aim, "lower": lower}
        say(f"  {name}: {_number(value)} {unit}  {verdict(event)}")
        self.write("figure", **event)


def say(text: str) -> None:
    print(text, flush=True)


def read_events(path: Path) -> list[Event]:
    """All complete events; a line that a killed process has left unfinished is left out."""
    events = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


OURS, THEIRS = "256 requests, Qwen3-0.6B shape", "256 requests, transformers' continuous batching (greedy)"


def compared(events: Iterable[Event]) -> list[Event]:
    """The figure that two parts make together, once both are there."""
    rates = {event["name"]: event["value"] for event in events if event["kind"] == "figure"}
    if OURS not in rates or not rates.get(THEIRS):
        return []
    name, value = "256 requests, over transformers' continuous batching", rates[OURS] / rates[THEIRS]
    return [
        {
            "kind": "figure",
            "part": "peer",
            "name": name,
            "value": value,
            "unit": "x",
            "must": 1.0,
            "aim": None,
            "lower": False,
        }
    ]


def verdict(figure: Event) -> str:
    """ "aim", "must" or "MISSED" against the bars, "" for a figure that has none."""
    value, must, aim, lower = figure["value"], figure["must"], figure["aim"], figure["lower"]
    for bar, word in ((aim, "aim"), (must, "must")):
        if bar is not None and (value <= bar if lower else value >= bar):
            return word
    return "" if must is None and aim is None else "MISSED"


def table(events: Iterable[Event]) -> str:
    """The last thing on the screen: each part's cases, what failed, every figure beside its bars."""
    events = list(events)
    lines = ["", "part            cases  failed  seconds"]
    for part in dict.fromkeys(event["part"] for event in events):
        cases = [event for event in events if event["part"] == part and event["kind"] == "case"]
        failed = sum(not case["ok"] for case in cases)
        seconds = sum(
            event["seconds"] for event in events if event["part"] == part and event["kind"] == "end"
        )
        lines.append(f"{part:15} {len(cases):5} {failed:7} {seconds:8.1f}")
    lines += [
        f"FAILED {e['part']}: {e['case']}: {e['detail']}"
        for e in events
        if e["kind"] == "case" and not e["ok"]
    ]
    lines += [f"{e['part']}: {e['text']}" for e in events if e["kind"] == "note"]
    figures = [event for event in events if event["kind"] == "figure"]
    if figures:
        lines += ["", f"{'figure':62} {'must':>8} {'aim':>8} {'measured':>10}  unit"]
        lines += [
            f"{f['name']:62} {_number(f['must']):>8} {_number(f['aim']):>8} {_number(f['value']):>10}  {f['unit']}  {verdict(f)}"
            for f in figures
        ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def save(events: list[Event], gpu: str, stamp: str) -> list[Path]:
    """Write everything so far to tests/bench/results and to $OUT, under the same names each time; returns the files that could be written."""
    name = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-") or "unknown"
    folders = [RESULTS, *([Path(os.environ["OUT"])] if os.environ.get("OUT") else [])]
    written = []
    for folder in folders:
        path = folder / f"{stamp}-{name}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"gpu": gpu, "events": events}, indent=1) + "\n")
            written.append(path)
        except OSError as error:
            say(f"cannot write {path}: {error}")  # the table is on the screen all the same
    return written
