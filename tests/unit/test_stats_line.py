"""The line of statistics: rates between two heartbeats, quiet while idle, not misled by a restart."""

from __future__ import annotations

from vsrv.messages import Beat
from vsrv.stats_line import StatsLine


def beat(
    step: int, running: int, prompt: float, generated: float, queries: float = 0, hits: float = 0
) -> Beat:
    counters = {
        "prompt_tokens": prompt,
        "generation_tokens": generated,
        "prefix_cache_queries": queries,
        "prefix_cache_hits": hits,
    }
    return Beat(step, running, 2, 0.25, counters)


def test_rates_are_those_of_the_interval() -> None:
    line = StatsLine(10.0)
    assert line.due(1.0, None) is None, "no engine yet"
    assert line.due(100.0, beat(0, 0, 0, 0)) is None
    assert line.due(105.0, beat(9, 3, 500, 40)) is None, "too early"
    said = line.due(110.0, beat(20, 3, 2000, 200, 400, 100))
    assert said is not None
    assert "200.0 prompt and 20.0 generated tokens a second" in said
    assert "3 sequences running, 2 waiting, 25.0% of the KV cache" in said and "25% of prompt tokens" in said
    said = line.due(130.0, beat(30, 3, 2000, 240, 400, 100))
    assert said is not None and " 0.0 prompt and 2.0 generated" in f" {said}" and "- of prompt tokens" in said


def test_it_is_quiet_while_nothing_happens() -> None:
    line = StatsLine(10.0)
    idle = Beat(0, 0, 0, 0.0)
    assert line.due(1.0, idle) is None and line.due(20.0, idle) is None
    assert line.due(40.0, Beat(8, 0, 0, 0.0)) is not None, "a step was made"
    assert line.due(60.0, Beat(8, 0, 0, 0.0)) is None
    assert line.due(80.0, Beat(8, 1, 0, 0.5)) is not None, (
        "a sequence runs and nothing moves: that must be seen"
    )
    assert StatsLine(0.0).due(60.0, beat(8, 1, 1, 1)) is None


def test_an_engine_that_starts_anew_is_no_negative_rate() -> None:
    line = StatsLine(1.0)
    assert line.due(1.0, beat(0, 0, 0, 0)) is None
    assert line.due(5.0, beat(100, 1, 5000, 5000)) is not None
    assert line.due(10.0, beat(1, 1, 10, 1)) is None
    said = line.due(15.0, beat(2, 1, 15, 5))
    assert said is not None and "3.0 prompt and 1.0 generated" in said
