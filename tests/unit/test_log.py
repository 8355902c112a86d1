"""One event, one line, whatever is in it."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsrv.log import Log, RequestRecord

EVIL = 'a\r\nb\x1b[2J\x00\x7f\x85\u2028 status=200 "x" \ud800'


def lines(form: str, message: str, **fields: object) -> str:
    out = io.StringIO()
    Log("info", form, out).event("info", message, **fields)
    return out.getvalue()


@pytest.mark.parametrize("form", ["text", "json"])
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_stays_one_line_without_control_characters(form: str, message: str, value: str) -> None:
    for text in (lines(form, message, path=value), lines(form, EVIL + message, path=EVIL + value)):
        assert text.endswith("\n") and text[:-1].isprintable()
        if form == "json":
            assert json.loads(text)["path"].endswith(value)


def test_a_value_cannot_pass_for_another_field() -> None:
    line = lines("text", "request", path="/x status=200", client='"', status=401)
    assert line.endswith('path="/x status=200" client="\\"" status=401\n')


def test_levels_and_changing_them() -> None:
    out = io.StringIO()
    log = Log("warning", "text", out)
    log.event("info", "quiet")
    log.set_level("debug")
    log.event("debug", "loud")
    assert "quiet" not in out.getvalue() and "loud" in out.getvalue()


def test_a_full_disk_costs_lines_and_no_requests() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    log = Log("info", "json", Full())
    log.request(RequestRecord("id", "k", "GET", "/", 200, "c", 0.1))
    assert log.lost_lines == 1


def test_what_is_not_known_is_left_out() -> None:
    out = io.StringIO()
    Log("info", "json", out).request(RequestRecord("id", "", "GET", "/v1/models", 200, "c", 0.123456789))
    assert set(json.loads(out.getvalue())) == {
        "time", "level", "message", "request_id", "method", "path", "status", "client", "total_s", "bytes_in", "bytes_out",
    }  # fmt: skip
