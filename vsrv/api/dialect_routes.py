"""Routes of the translated dialects that generate nothing: counting a prompt's tokens, and asking for what is not kept."""

from __future__ import annotations

from vsrv.api.dialect_fields import COUNT_TOKENS, INPUT_TOKENS
from vsrv.api.intake import Intake
from vsrv.api.rendering import json_response
from vsrv.errors import UserError
from vsrv.http.route import AuthClass, Route
from vsrv.http.values import Request, Response


class DialectRoutes:
    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def routes(self) -> tuple[Route, ...]:
        one = "/v1/responses/{response}"
        return (
            Route(("POST",), "/v1/messages/count_tokens", AuthClass.INFERENCE, self._count_tokens),
            Route(("POST",), "/v1/responses/input_tokens", AuthClass.INFERENCE, self._input_tokens),
            Route(("GET", "DELETE"), one, AuthClass.INFERENCE, self._not_kept),
            Route(("GET",), one + "/input_items", AuthClass.INFERENCE, self._not_kept),
            Route(("POST",), one + "/cancel", AuthClass.INFERENCE, self._not_kept),
        )

    async def _count_tokens(self, request: Request, placeholders: dict[str, str]) -> Response:
        count = await self._counted(request, COUNT_TOKENS)
        return json_response({"input_tokens": count}, headers=[("request-id", request.id)])

    async def _input_tokens(self, request: Request, placeholders: dict[str, str]) -> Response:
        count = await self._counted(request, INPUT_TOKENS)
        return json_response({"object": "response.input_tokens", "input_tokens": count})

    async def _counted(self, request: Request, dialect: str) -> int:
        """Tokens of the prompt that a body makes."""
        self._intake.lease(request)
        prepared = await self._intake.prepare(request, dialect)
        return len(prepared.prompts[0])

    async def _not_kept(self, request: Request, placeholders: dict[str, str]) -> Response:
        name = placeholders["response"][:100]
        message = f"Response with id '{name}' not found: vsrv keeps no responses (store is always false)"
        raise UserError(404, "response_not_found", message, "response_id")
