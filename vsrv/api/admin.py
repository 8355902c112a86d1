"""Routes that start no generation: probes, metrics, the model's facts, tokens ↔ text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson

import vsrv
from vsrv.api.fields import Fields, invalid, parse_object
from vsrv.api.intake import Intake
from vsrv.api.messages_anthropic import model_object
from vsrv.api.openapi import Access, document
from vsrv.api.parts import ApiOptions, Parts
from vsrv.api.rendering import JSON_HEADERS, json_response
from vsrv.api.schema import check_model, request_fields
from vsrv.engine_client import EngineClient
from vsrv.errors import UserError
from vsrv.http.route import AuthClass, Route
from vsrv.http.values import Request, Response
from vsrv.metrics import QueueState


class Admin:
    """`scrape` is the one route that can stand on a port of its own; `listed` gives the routes that /openapi.json tells of."""

    def __init__(
        self, parts: Parts, options: ApiOptions, intake: Intake, listed: Callable[[], tuple[Route, ...]]
    ) -> None:
        self._parts = parts
        self._options = options
        self._intake = intake
        self._listed = listed
        self._document = b""
        self.scrape = Route(("GET",), "/metrics", AuthClass.METRICS, self._metrics)

    def routes(self) -> tuple[Route, ...]:
        return (
            Route(("GET",), "/livez", AuthClass.PROBE, self._livez),
            Route(("GET",), "/readyz", AuthClass.PROBE, self._health),
            Route(("GET",), "/health", AuthClass.PROBE, self._health),
            Route(("GET", "POST"), "/ping", AuthClass.PROBE, self._health),
            Route(("GET",), "/load", AuthClass.PROBE, self._load),
            Route(("GET",), "/version", AuthClass.PUBLIC, self._version),
            *(() if self._options.metrics_on_own_port else (self.scrape,)),
            *(
                (Route(("GET",), "/openapi.json", AuthClass.INFERENCE, self._openapi),)
                if self._options.has_openapi
                else ()
            ),
            *(
                (Route(("GET",), "/tokenizer_info", AuthClass.INFERENCE, self._tokenizer_info),)
                if self._options.tokenizer_info is not None
                else ()
            ),
            Route(("GET",), "/v1/models", AuthClass.INFERENCE, self._models),
            Route(("GET",), "/v1/models/{model:path}", AuthClass.INFERENCE, self._model),
            Route(("POST",), "/tokenize", AuthClass.INFERENCE, self._tokenize),
            Route(("POST",), "/detokenize", AuthClass.INFERENCE, self._detokenize),
        )

    async def _livez(self, request: Request, placeholders: dict[str, str]) -> Response:
        return Response(200, [("content-type", "text/plain")], b"ok\n")

    async def _health(self, request: Request, placeholders: dict[str, str]) -> Response:
        return health_response(self._parts.engine)

    async def _load(self, request: Request, placeholders: dict[str, str]) -> Response:
        return json_response({"server_load": self._parts.admission.sequences})

    async def _version(self, request: Request, placeholders: dict[str, str]) -> Response:
        return json_response({"version": vsrv.__version__})

    async def _openapi(self, request: Request, placeholders: dict[str, str]) -> Response:
        if not self._document:
            keys = self._parts.keys
            access = Access(keys.required, keys.required_for_metrics)
            self._document = document(self._listed(), self._parts.facts, access, self._options.root_path)
        return Response(200, list(JSON_HEADERS), self._document)

    async def _metrics(self, request: Request, placeholders: dict[str, str]) -> Response:
        if not self._options.metrics_enabled:
            raise UserError(404, "not_found", "metrics are switched off (--disable-log-stats)")
        metrics, engine, admission = self._parts.metrics, self._parts.engine, self._parts.admission
        metrics.beat, metrics.ready = engine.beat, engine.ready
        metrics.queue = QueueState(
            admission.waiting, admission.tokens, admission.bytes, admission.oldest_wait_s
        )
        body, content_type = await metrics.exposition(request.headers.get("accept") or "")
        return Response(200, [("content-type", content_type)], body)

    async def _models(self, request: Request, placeholders: dict[str, str]) -> Response:
        self._intake.require_ready()
        names = self._parts.facts.served_names
        cards = [self._card(name, request) for name in names]
        if _is_anthropic(request):
            ends = {"first_id": names[0], "last_id": names[-1]}
            return json_response({"data": cards, "has_more": False, **ends})
        return json_response({"object": "list", "data": cards})

    async def _model(self, request: Request, placeholders: dict[str, str]) -> Response:
        self._intake.require_ready()
        check_model(Fields({"model": placeholders["model"]}), self._parts.facts)
        return json_response(self._card(placeholders["model"], request))

    def _card(self, name: str, request: Request) -> dict[str, object]:
        if _is_anthropic(request):
            longest = self._parts.facts.max_model_len
            return model_object(name, self._options.created, longest)
        return {
            "id": name,
            "object": "model",
            "created": self._options.created,
            "owned_by": "vsrv",
            "root": self._parts.facts.served_names[0],
            "parent": None,
            "max_model_len": self._parts.facts.max_model_len,
        }

    async def _tokenize(self, request: Request, placeholders: dict[str, str]) -> Response:
        self._intake.lease(request)
        prepared = await self._intake.prepare(request, "tokenize")
        ids = prepared.prompts[0].tolist()
        answer = {
            "count": len(ids),
            "max_model_len": self._parts.facts.max_model_len,
            "tokens": ids,
            "token_strs": prepared.prompt_texts or None,
        }
        return json_response(answer)

    async def _tokenizer_info(self, request: Request, placeholders: dict[str, str]) -> Response:
        return json_response(self._options.tokenizer_info)

    async def _detokenize(self, request: Request, placeholders: dict[str, str]) -> Response:
        self._intake.require_ready()
        self._intake.lease(request)
        body = await self._intake.json_body(request, 1 << 20)
        # half a million ids are half a second of work; not the event loop's
        text = await asyncio.get_running_loop().run_in_executor(None, self._detokenized, body)
        return json_response({"prompt": text})

    def _detokenized(self, body: bytes | bytearray) -> str:
        fields = request_fields(parse_object(body), "detokenize", self._parts.facts)
        tokens = fields["tokens"]
        if tokens is None:
            raise invalid("tokens", "is missing: expected a list of token ids")
        return self._parts.tokenizer.decode(list(tokens), skip_special_tokens=False)


def _is_anthropic(request: Request) -> bool:
    """Anthropic's clients ask on the same paths for other objects; only they send this header."""
    return request.headers.get("anthropic-version") is not None


def health_response(engine: EngineClient) -> Response:
    """200 with an empty body as vLLM answers, or 503 with the reason."""
    health = engine.health()
    if health.state == "ready":
        return Response(200)
    body = orjson.dumps(
        {"status": health.state, "reason": health.reason, "phase": health.phase, "fraction": health.fraction}
    )
    return Response(503, [("content-type", "application/json"), ("retry-after", "2")], body)
