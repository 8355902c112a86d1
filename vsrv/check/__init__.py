"""`vsrv check`: what `vsrv serve` would find at its start, without starting: settings, keys, TLS, address, model, device, memory.

Every check goes on after another has failed, so that one run shows all that is wrong. Nothing is loaded, bound for long, or written.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict

from vsrv.check import surroundings
from vsrv.check.finding import Finding, Report, as_json, as_text, failed
from vsrv.config import ServeConfig, conflicts
from vsrv.config_text import differing
from vsrv.errors import EXIT_CONFIG, ConfigError
from vsrv.serve import choose_gpu


def run(combined: Callable[[], ServeConfig], wants_json: bool) -> int:
    """Print the report of the configuration that `combined` makes (`config.combine`; it may raise ConfigError); returns 0 or 78."""
    report = check(combined)
    print(as_json(report) if wants_json else as_text(report))
    return EXIT_CONFIG if report.num_errors else 0


def check(combined: Callable[[], ServeConfig]) -> Report:
    """All findings about a configuration."""
    try:
        config = combined()
    except ConfigError as error:
        return Report((failed("settings", error),))
    settings = differing(config)
    choose_gpu(config, os.environ)
    found = [
        Finding(
            "settings", "ok", f"{len(settings)} differ from the defaults; `vsrv config --diff` shows them"
        )
    ]
    found += [Finding("settings", "warning", warning) for warning in config.warnings]
    found += [failed("settings", conflict) for conflict in conflicts(config)]
    for look in (surroundings.keys, surroundings.certificate, surroundings.addresses, surroundings.limits):
        found += look(config)
    try:
        report = _model_and_device(config, found)
    except ImportError as error:
        found.append(Finding("packages", "error", f"{error.name} is missing", f"pip install {error.name}"))
        report = Report(tuple(found))
    return Report(report.findings, report.budget_lines, report.budget, settings)


def _model_and_device(config: ServeConfig, found: list[Finding]) -> Report:
    from vsrv.check.device import check_device, check_memory
    from vsrv.check.model import check_model

    model = check_model(config)
    found += model.findings
    engine = config.engine(model.folder) if model.folder is not None else None
    if engine is None:
        return Report(tuple(found))
    device = check_device(engine)
    found += device.findings
    if model.spec is None:
        return Report(tuple(found))
    more, budget = check_memory(engine, model.spec, device)
    found += more
    if budget is None:
        return Report(tuple(found))
    figures = {name: value for name, value in asdict(budget).items() if isinstance(value, int)}
    return Report(tuple(found), budget.lines, figures)
