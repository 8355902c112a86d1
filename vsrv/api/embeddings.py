"""/v1/embeddings, /v1/rerank and /v1/score with their other names: vectors → JSON.

A cross-encoder's vector is the score of a pair; with an embedding model a score is the cosine of two vectors.
Answers have the shapes of vLLM, which are those of OpenAI (embeddings), Jina and Cohere (rerank).
"""

from __future__ import annotations

import asyncio
import base64
import math
import sys
from array import array
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from operator import mul
from typing import Any

import orjson

from vsrv.api.intake import Intake, engine_fault
from vsrv.api.pooling import Pooling
from vsrv.api.pooling_fields import EMBEDDINGS, RERANK, SCORE
from vsrv.api.rendering import JSON_HEADERS, AnswerIds, whole_usage
from vsrv.errors import EngineError
from vsrv.http.route import AuthClass, Handler, Route
from vsrv.http.values import Request, Response

_AT_ONCE = 32  # vectors written or compared before others have their turn on the event loop
Vectors = list["array[float]"]
Rendering = Callable[[Pooling, Vectors, AnswerIds], Coroutine[Any, Any, bytes]]


@dataclass(frozen=True, slots=True)
class PoolingRoute:
    """One way to ask for vectors. `dialect` is what the prepare step calls the body, `prefix` begins the answer's id."""

    path: str
    dialect: str
    prefix: str
    render: Rendering


async def embeddings_body(pooling: Pooling, vectors: Vectors, ids: AnswerIds) -> bytes:
    """OpenAI's list of embeddings."""
    write = _base64 if pooling.request.base64 else _numbers
    rows = []
    for index, vector in enumerate(vectors):
        rows.append(b'{"index":%d,"object":"embedding","embedding":%b}' % (index, write(vector)))
        if index % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
    head = orjson.dumps({"id": ids.id, "object": "list", "created": ids.created, "model": ids.model})
    return b'%b,"data":[%b],"usage":%b}' % (
        head[:-1],
        b",".join(rows),
        orjson.dumps(whole_usage(pooling.usage, False)),
    )


def _numbers(vector: array[float]) -> bytes:
    return orjson.dumps(vector.tolist())


def _base64(vector: array[float]) -> bytes:
    """Little-endian float32."""
    if sys.byteorder == "big":
        vector = array("f", vector)
        vector.byteswap()
    return b'"%b"' % base64.b64encode(vector.tobytes())


async def score_body(pooling: Pooling, vectors: Vectors, ids: AnswerIds) -> bytes:
    """vLLM's list of scores, one for each pair."""
    scores = await _scores(pooling, vectors)
    data = [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)]
    table = {"id": ids.id, "object": "list", "created": ids.created, "model": ids.model}
    return orjson.dumps({**table, "data": data, "usage": whole_usage(pooling.usage, False)})


async def rerank_body(pooling: Pooling, vectors: Vectors, ids: AnswerIds) -> bytes:
    """The best documents first, as Jina, Cohere and vLLM list them."""
    scores, request = await _scores(pooling, vectors), pooling.request
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: request.top_n or None]
    results = []
    for index in order:
        shown = (
            {"document": {"text": pooling.prepared.prompt_texts[index]}} if request.return_documents else {}
        )
        results.append({"index": index, **shown, "relevance_score": scores[index]})
    count = pooling.usage.prompt_tokens
    usage = {"prompt_tokens": count, "total_tokens": count}
    return orjson.dumps({"id": ids.id, "model": ids.model, "usage": usage, "results": results})


async def _scores(pooling: Pooling, vectors: Vectors) -> list[float]:
    """One for each pair: what a cross-encoder said, or cosines."""
    count = pooling.request.num_firsts
    if count == 0:
        return [vector[0] for vector in vectors]
    scores = []
    for index, second in enumerate(vectors[count:]):
        scores.append(cosine(vectors[0 if count == 1 else index], second))
        if index % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
    return scores


def cosine(a: array[float], b: array[float]) -> float:
    """From -1 to 1; 0 where a vector has no direction."""
    lengths = math.sqrt(math.fsum(map(mul, a, a)) * math.fsum(map(mul, b, b)))
    return max(-1.0, min(1.0, math.fsum(map(mul, a, b)) / lengths)) if lengths else 0.0


ROUTES = (
    PoolingRoute("/v1/embeddings", EMBEDDINGS, "embd-", embeddings_body),
    *(PoolingRoute(path, RERANK, "score-", rerank_body) for path in ("/rerank", "/v1/rerank", "/v2/rerank")),
    *(PoolingRoute(path, SCORE, "score-", score_body) for path in ("/score", "/v1/score")),
)


class Embedding:
    """The handlers of all routes that ask for vectors."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def routes(self) -> tuple[Route, ...]:
        return tuple(
            Route(("POST",), route.path, AuthClass.INFERENCE, self._handler(route)) for route in ROUTES
        )

    def _handler(self, route: PoolingRoute) -> Handler:
        async def handle(request: Request, placeholders: dict[str, str]) -> Response:
            return await self._answer(request, route)

        return handle

    async def _answer(self, request: Request, route: PoolingRoute) -> Response:
        prepared, terms = await self._intake.take(request, route.dialect)
        trace = self._intake.traces[request]
        trace.generation = pooling = Pooling(self._intake.services, prepared, terms)
        if trace.hold is not None:
            trace.hold.close()
        try:
            vectors = await pooling.vectors()
        except EngineError as error:
            raise engine_fault(error, request.id) from None
        ids = self._intake.answer_ids(request, route.prefix, prepared)
        return Response(200, list(JSON_HEADERS), await route.render(pooling, vectors, ids))
