"""Bodies of embeddings, rerank and score → checked request and token ids. Synchronous and free of I/O, as prepare.py."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from vsrv.api.fields import Fields, invalid, token_id
from vsrv.api.pooling_fields import EMBEDDINGS, KNOWN, MAX_INPUTS, PAIRS, RERANK, SCORE
from vsrv.api.schema import ModelFacts, check_model, too_long
from vsrv.errors import UserError
from vsrv.text.tokenizer import Cut, Tokenizer

MAX_TOTAL_TOKENS = 1 << 20  # of all inputs of a request; OpenAI has 300,000


@dataclass(frozen=True, slots=True)
class PoolingRequest:
    """A checked request for vectors or scores without its inputs.

    Input i has token type 1 from index `second_from[i]` on. A cross-encoder gets one input for each pair. For scores by embedding
    `num_firsts` inputs are the first texts, the others the second ones; one first text stands for all.
    """

    dialect: str
    model: str
    second_from: tuple[int, ...]
    num_firsts: int = 0
    dimensions: int = 0
    raw: bool = False
    base64: bool = False
    top_n: int = 0
    return_documents: bool = True
    priority: int = 0
    cache_salt: str = ""
    request_id: str = ""
    unknown: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> PoolingRequest:
        for name in ("second_from", "unknown"):
            table[name] = tuple(table[name])
        return cls(**table)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is to be computed: ids of each input, and for rankings the documents as they are shown."""

    request: PoolingRequest
    ids: list[array[int]]
    texts: list[str]


@dataclass(frozen=True, slots=True)
class _Encoded:
    """ids, and where the second text begins."""

    ids: array[int]
    second_from: int


class PoolingPreparer:
    """Made for one request. Counts the tokens as it goes, so that too many are refused before all are read."""

    def __init__(self, fields: Fields, tokenizer: Tokenizer, facts: ModelFacts) -> None:
        self._fields = fields
        self._tokenizer = tokenizer
        self._facts = facts
        keep = fields["truncate_prompt_tokens"]
        keep = facts.max_model_len if keep == -1 else keep
        self._total = 0
        self._cut = None if keep is None else Cut(keep, fields["truncation_side"])

    def prepare(self, dialect: str) -> Inputs:
        """dialect: one of POOLING. Raises UserError."""
        if dialect == EMBEDDINGS:
            return self._embeddings()
        if dialect == RERANK:
            return self._rerank()
        return self._score()

    def _embeddings(self) -> Inputs:
        items = [self._encoded(item) for item in self._items()]
        dimensions = self._dimensions()
        request = self._request(
            EMBEDDINGS, items, dimensions=dimensions, base64=self._fields["encoding_format"] == "base64"
        )
        return Inputs(request, [item.ids for item in items], [])

    def _items(self) -> list[Any]:
        """Text, token ids, or a list of either → a list of inputs."""
        given = self._fields["input"]
        if given is None or given in ("", []):
            raise invalid("input", "is missing or empty")
        is_one = isinstance(given, str) or (isinstance(given, list) and _is_number(given[0]))
        items = [given] if is_one else given
        if not isinstance(items, list) or len(items) > MAX_INPUTS:
            raise invalid("input", f"expected text, token ids, or a list of at most {MAX_INPUTS} of these")
        return items

    def _encoded(self, item: Any) -> _Encoded:
        if isinstance(item, str) and item:
            return self._text(item, "input", self._fields["add_special_tokens"])
        if not isinstance(item, list) or not item:
            raise invalid("input", "expected non-empty text or token ids")
        if len(item) > self._facts.max_model_len and self._cut is None:
            raise self._too_long(str(len(item)), "input")
        ids = array("I", [token_id(token, "input", self._facts.vocab_size) for token in item])
        ids = ids if self._cut is None else self._cut.of(ids)
        return self._checked(_Encoded(ids, len(ids)), "input")

    def _dimensions(self) -> int:
        """0 for the whole vector. Only a model that was trained to be shortened is."""
        facts, wanted = self._facts, self._fields["dimensions"]
        if wanted is None or wanted == facts.embedding_size:
            return 0
        if not facts.is_matryoshka:
            message = f"this model's vectors have {facts.embedding_size} dimensions and were not made to be shortened"
            raise invalid("dimensions", message)
        allowed = facts.matryoshka
        if wanted > facts.embedding_size or (allowed and wanted not in allowed):
            listed = ", ".join(map(str, allowed)) if allowed else f"1 to {facts.embedding_size}"
            raise invalid("dimensions", f"this model's vectors can have {listed} dimensions, not {wanted}")
        return int(wanted)

    def _rerank(self) -> Inputs:
        fields = self._fields
        documents = [_document(item) for item in fields["documents"] or ()]
        if not documents:
            raise invalid("documents", "is missing")
        if fields["query"] is None:
            raise invalid("query", "is missing")
        inputs = self._compared(RERANK, [fields["query"]], documents, ("query", "documents"))
        return Inputs(inputs.request, inputs.ids, documents if fields["return_documents"] else [])

    def _score(self) -> Inputs:
        fields = self._fields
        names = dict.fromkeys(name for pair in PAIRS for name in pair)
        given = {name: _texts(fields[name], name) for name in names if fields.has(name)}
        for first, second in PAIRS:
            if first in given and second in given:
                return self._compared(SCORE, given[first], given[second], (first, second))
        listed = ", ".join(f"{first} and {second}" for first, second in PAIRS)
        raise invalid("text_1", f"is missing: send {listed}")

    def _compared(
        self, dialect: str, firsts: list[str], seconds: list[str], names: tuple[str, str]
    ) -> Inputs:
        """One first text to all second ones, or each to its own."""
        if len(firsts) not in (1, len(seconds)):
            message = f"{len(firsts)} texts cannot be paired with {len(seconds)}: send one, or as many"
            raise invalid(names[0], message)
        query, document = self._shortened("max_tokens_per_query"), self._shortened("max_tokens_per_doc")
        firsts, seconds = [query(text) for text in firsts], [document(text) for text in seconds]
        if "score" in self._facts.tasks:
            groups = (
                [(firsts[0], seconds)]
                if len(firsts) == 1
                else [(first, [second]) for first, second in zip(firsts, seconds, strict=True)]
            )
            items = [item for first, others in groups for item in self._pairs(first, others, names[1])]
            count = 0
        else:
            items = [self._text(text, names[0], True) for text in firsts]
            items += [self._text(text, names[1], True) for text in seconds]
            count = len(firsts)
        fields = self._fields
        is_ranking = dialect == RERANK
        request = self._request(
            dialect,
            items,
            num_firsts=count,
            top_n=fields["top_n"] if is_ranking else 0,
            return_documents=is_ranking and fields["return_documents"],
        )
        return Inputs(request, [item.ids for item in items], [])

    def _shortened(self, name: str) -> Callable[[str], str]:
        most: int = self._fields[name]
        return lambda text: self._tokenizer.first_tokens(text, most) if most else text

    def _text(self, text: str, param: str, add_special: bool) -> _Encoded:
        self._check_text(text, param)
        if self._cut is not None:
            text = self._facts.readable(text, self._cut.side)
        ids, _ = self._tokenizer.encode_input(text, add_special, self._cut)
        return self._checked(_Encoded(ids, len(ids)), param)

    def _pairs(self, first: str, seconds: list[str], param: str) -> Iterator[_Encoded]:
        """The first text with each of the others."""
        for second in seconds:
            self._check_text(first + second, param)
        if self._cut is not None:
            side = self._cut.side
            first = self._facts.readable(first, side)
            seconds = [self._facts.readable(second, side) for second in seconds]
        for pair in self._tokenizer.encode_pairs(first, seconds, self._cut):
            yield self._checked(_Encoded(*pair), param)

    def _check_text(self, text: str, param: str) -> None:
        if len(text) > self._facts.longest_text and self._cut is None:
            raise self._too_long(f"far more than {self._facts.max_model_len}", param)

    def _checked(self, item: _Encoded, param: str) -> _Encoded:
        if len(item.ids) > self._facts.max_model_len:
            raise self._too_long(str(len(item.ids)), param)
        if not item.ids:
            raise invalid(param, "an input has no tokens")
        self._total += len(item.ids)
        if self._total > MAX_TOTAL_TOKENS:
            raise invalid(param, f"all inputs together have more than {MAX_TOTAL_TOKENS} tokens")
        return item

    def _too_long(self, length: str, param: str) -> UserError:
        return too_long(self._facts, f"an input has {length}", param, ", or send truncate_prompt_tokens: -1")

    def _request(self, dialect: str, items: list[_Encoded], **more: Any) -> PoolingRequest:
        fields = self._fields
        return PoolingRequest(
            dialect=dialect,
            model=check_model(fields, self._facts),
            second_from=tuple(item.second_from for item in items),
            raw=not fields["use_activation"],
            priority=fields["priority"],
            cache_salt=fields["cache_salt"],
            request_id=fields["request_id"],
            unknown=fields.unknown(KNOWN),
            **more,
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _document(item: Any) -> str:
    """A text, or an object that has one, as Cohere and Jina send them."""
    text = item.get("text") if isinstance(item, dict) else item
    if not isinstance(text, str):
        raise invalid("documents", "each document must be text, or an object with a text")
    return text


def _texts(value: Any, name: str) -> list[str]:
    items = [value] if isinstance(value, str) else value
    is_list = isinstance(items, list) and 0 < len(items) <= MAX_INPUTS
    if not is_list or not all(isinstance(item, str) for item in items):
        raise invalid(name, f"expected a text or a list of 1 to {MAX_INPUTS} texts")
    return items
