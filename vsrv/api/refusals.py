"""A UserError as a whole answer, in the words of the dialect that the path speaks: OpenAI's, or Anthropic's under /v1/messages.

With the standard library alone: the front answers before anything else of this folder is loaded.
"""

from __future__ import annotations

import json
import math
from typing import Any

from vsrv.errors import UserError
from vsrv.http.values import Response

_ANTHROPIC_PATH = "/v1/messages"
_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "server_overloaded_error",
    504: "timeout_error",
}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_FINAL = {"request_timeout", "prompt_above_limit"}  # codes of statuses that clients would try again in vain


def error_object(error: UserError) -> dict[str, Any]:
    """OpenAI's."""
    kind = _OPENAI_TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def anthropic_error_object(error: UserError, request_id: str) -> dict[str, Any]:
    """`details.error_code` is where Anthropic's SDK looks for the stable code; `param` stands beside it."""
    kind = _ANTHROPIC_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    details = {"error_code": error.code, "param": error.param}
    table = {"type": kind, "message": error.message, "details": details}
    return {"type": "error", "error": table, "request_id": request_id}


def error_response(error: UserError, request_id: str, path: str) -> Response:
    """The refusal of a request for `path` ("" where it is not known).

    Retry-After is whole seconds and at most 120, because clients refuse to wait longer.
    """
    headers = [("content-type", "application/json")]
    if error.retry_after_s is not None:
        headers.append(("retry-after", str(min(120, max(1, math.ceil(error.retry_after_s))))))
    if error.code in _FINAL:
        headers.append(("x-should-retry", "false"))
    if error.status == 401:
        headers.append(("www-authenticate", 'Bearer realm="vsrv"'))
    if path == _ANTHROPIC_PATH or path.startswith(_ANTHROPIC_PATH + "/"):
        headers.append(("request-id", request_id))
        table = anthropic_error_object(error, request_id)
    else:
        table = error_object(error)
    return Response(error.status, headers, json.dumps(table, ensure_ascii=False).encode(errors="replace"))
