"""What a check has found, and how it is shown: a line for each finding, or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from vsrv.errors import ConfigError

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One result. `fix` is what to put on the command line, or to run, to mend it."""

    topic: str
    level: Level
    message: str
    fix: str = ""


def failed(topic: str, error: ConfigError, fix: str = "") -> Finding:
    """What would stop the start."""
    return Finding(topic, "error", str(error), error.remedy or fix)


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, the memory budget's lines and figures, and the settings that are not defaults."""

    findings: tuple[Finding, ...]
    budget_lines: tuple[str, ...] = ()
    budget: dict[str, int] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def num_errors(self) -> int:
        return sum(finding.level == "error" for finding in self.findings)


def as_text(report: Report) -> str:
    """A table for people, ending with the verdict."""
    width = max(len(finding.topic) for finding in report.findings)
    lines = []
    for finding in report.findings:
        lines.append(f"{finding.level:<8} {finding.topic:<{width}}  {finding.message}")
        if finding.fix:
            lines.append(f"{'':<8} {'':<{width}}  → {finding.fix}")
    if report.budget_lines:
        lines += ["", "memory:", *(f"  {line}" for line in report.budget_lines)]
    return "\n".join([*lines, "", _verdict(report)])


def _verdict(report: Report) -> str:
    warnings = sum(finding.level == "warning" for finding in report.findings)
    counted = f"{_count(report.num_errors, 'error')}, {_count(warnings, 'warning')}"
    if report.num_errors:
        return f"vsrv serve would not start: {counted}"
    return f"vsrv serve would start: {counted}"


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def as_json(report: Report) -> str:
    """The same for programs: ok, findings, budget, settings."""
    findings: Sequence[dict[str, str]] = [asdict(finding) for finding in report.findings]
    table = {
        "ok": not report.num_errors,
        "findings": findings,
        "budget": report.budget,
        "settings": report.settings,
    }
    return json.dumps(table, indent=2, ensure_ascii=False)
