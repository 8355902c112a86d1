"""The fields of requests for embeddings, scores and rankings: one row each, for the parser and for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping

from vsrv.api.fields import Field, Table, refused, table

EMBEDDINGS, RERANK, SCORE = "embeddings", "rerank", "score"
POOLING = (EMBEDDINGS, RERANK, SCORE)
RANKING = (RERANK, SCORE)
MAX_INPUTS = 2048  # as OpenAI has it
MAX_DIMENSIONS = 65536
PAIRS = (  # under these names the first and second texts of a score are sent
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
)
_IDS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
_INPUT = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_INPUTS,
            "items": {"anyOf": [{"type": "string", "minLength": 1}, _IDS]},
        },
        _IDS,
    ]
}
_TEXTS = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "minItems": 1, "maxItems": MAX_INPUTS, "items": {"type": "string"}},
    ]
}
_DOCUMENTS = {
    "items": {
        "anyOf": [
            {"type": "string"},
            {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
        ]
    }
}


def _texts(name: str, help: str) -> Field:
    return Field(name, "any", help, dialects=(SCORE,), schema=_TEXTS)


# fmt: off
ROWS = (
    Field("model", "text", "a name of the served model; absent or empty: the first one", 0, 1024, "", POOLING),
    Field("input", "any", "a text, token ids, or a list of either", dialects=(EMBEDDINGS,), required=True, schema=_INPUT),
    Field("encoding_format", "choice", "how vectors are written: numbers, or little-endian float32 in base64", default="float",
          dialects=(EMBEDDINGS,), choices=("float", "base64")),
    Field("dimensions", "integer", "length of the vectors, where the model was made to be shortened", 1, MAX_DIMENSIONS, None, (EMBEDDINGS,)),
    Field("query", "text", "what the documents are compared with", 1, "longest_text", None, (RERANK,), required=True),
    Field("documents", "list", "the texts to be ranked, or objects with a text", 1, MAX_INPUTS, None, (RERANK,), required=True, schema=_DOCUMENTS),
    Field("top_n", "integer", "only so many of the best; 0: all", 0, MAX_INPUTS, 0, (RERANK,)),
    Field("return_documents", "boolean", "repeat the documents in the answer", default=True, dialects=(RERANK,)),
    _texts("text_1", "the first text of each pair; one for all, or as many as there are second ones"),
    _texts("text_2", "the second texts"),
    _texts("queries", "another name of text_1"),
    _texts("documents", "another name of text_2"),
    _texts("items", "another name of text_2"),
    _texts("data_1", "another name of text_1"),
    _texts("data_2", "another name of text_2"),
    Field("max_tokens_per_query", "integer", "keep so many tokens of a longer query; 0: all", 0, "max_model_len", 0, RANKING),
    Field("max_tokens_per_doc", "integer", "keep so many tokens of a longer document; 0: all", 0, 1 << 30, 0, RANKING),
    Field("truncate_prompt_tokens", "integer", "keep so many tokens of a longer input; -1: what fits", -1, "max_model_len", None, POOLING),
    Field("truncation_side", "choice", "where truncate_prompt_tokens cuts", default="right", dialects=POOLING, choices=("left", "right")),
    Field("add_special_tokens", "boolean", "put the tokens around a text that the model was trained with", default=True, dialects=(EMBEDDINGS,)),
    Field("use_activation", "boolean", "false leaves out the model's last step: normalising a vector, bounding a score", default=True, dialects=POOLING),
    Field("priority", "integer", "with --scheduling-policy priority: the smaller, the sooner", -(2**31), 2**31 - 1, 0, POOLING),
    Field("cache_salt", "text", "keeps cached prompts apart from those with another salt", 1, 128, "", POOLING),
    Field("request_id", "text", "becomes part of the answer's id", 1, 128, "", POOLING,
          pattern=r"[A-Za-z0-9._:-]{1,128}", expected="1 to 128 letters, digits or any of - _ . :"),
    Field("user", "any", "accepted, without effect", dialects=POOLING),
    refused("messages", "is not supported for embeddings: send the text as input", dialects=(EMBEDDINGS,)),
    refused("normalize", "is not supported: use_activation false leaves vectors as they are", True, dialects=(EMBEDDINGS,)),
    refused("embed_dtype", "", "float32", "auto", dialects=(EMBEDDINGS,)),
    refused("endianness", "", "native", "little", dialects=(EMBEDDINGS,)),
    refused("mm_processor_kwargs", dialects=POOLING),
    refused("instruction", "", "", dialects=RANKING),
    refused("chat_template_kwargs", "", {}, dialects=RANKING),
    refused("chat_template", dialects=RANKING),
)
# fmt: on
REQUESTS: Mapping[str, Table] = {
    dialect: table(*(row for row in ROWS if dialect in row.dialects)) for dialect in POOLING
}
KNOWN = frozenset(row.name for row in ROWS)
