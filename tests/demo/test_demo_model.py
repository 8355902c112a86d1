"""The embedded model and the program that makes it: sizes, facts against the option table, reproducible data, answers by transformers."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer

from vsrv.demo import evaluate, model_path
from vsrv.demo.dialogue import OPTIONS as TOPICS
from vsrv.demo.dialogue import TOPICS as ALL_TOPICS
from vsrv.demo.dialogue import make_dialogue
from vsrv.demo.network import Network, Shape
from vsrv.demo.tokens import Encoder, train_tokenizer
from vsrv.demo.train import Plan, inherit, train
from vsrv.options import OPTIONS

FLAG = re.compile(r"--(no-)?([a-z][a-z0-9-]*)")
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)


def test_the_files_are_small_and_complete() -> None:
    sizes = {name: (model_path() / name).stat().st_size for name in MODEL_FILES}
    assert sum(sizes.values()) <= 8_000_000, sizes


def test_every_answer_agrees_with_the_option_table() -> None:
    rows = {option.name: option for option in OPTIONS}
    for topic in TOPICS:
        row = rows[topic.name]
        assert topic.refused == bool(row.refused), topic.name
        for _, name in FLAG.findall(topic.reply):
            assert name in rows, f"{topic.name} speaks of --{name}"
        default = re.search(r"\(default ([\d.]+)\)", topic.reply)
        if default:
            assert float(default[1]) == float(row.default), topic.name
        if not topic.refused:
            assert f"Environment: {row.variable}." in topic.reply
    asked_first = """host port ssl-certfile ssl-keyfile api-key allow-unauthenticated allowed-origins max-num-seqs max-model-len
        max-num-batched-tokens kv-cache-memory-bytes dtype device threads served-model-name chat-template log-level
        keep-alive-timeout shutdown-timeout max-num-queued-reqs enable-prefix-caching config""".split()
    assert len(asked_first) >= 20 and set(asked_first) <= {topic.name for topic in TOPICS}


def test_the_held_out_questions_name_real_options() -> None:
    cases = evaluate.read_cases(model_path() / "heldout.tsv")
    names = {option.name for option in OPTIONS}
    assert len(cases) >= 100 and {option for case in cases for option in case.options} <= names
    assert sum(not case.options for case in cases) >= 10
    made = random.Random(5)
    generated = {turn.question.lower() for _ in range(3000) for turn in make_dialogue(made).turns}
    assert not generated & {case.question.lower() for case in cases if len(case.question.split()) > 4}


def test_the_generator_depends_on_its_seed_alone() -> None:
    first, second, other = (
        [
            make_dialogue(rng, long)
            for rng in (random.Random(seed),)
            for long in (False, True)
            for _ in range(50)
        ]
        for seed in (1, 1, 2)
    )
    assert first == second and first != other
    assert len({topic.name for topic in ALL_TOPICS}) == len(ALL_TOPICS)


def test_a_short_training_is_reproducible_and_loads_like_any_model(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(
            Plan(
                tmp_path / name,
                steps=2,
                seed=3,
                threads=1,
                tokens_per_step=512,
                vocabulary_texts=2000,
                check=0,
            )
        )
    for name in MODEL_FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    network = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    assert sum(p.numel() for p in network.parameters()) == sum(
        p.numel() for p in Network(Shape()).parameters()
    )


def test_training_goes_on_from_a_model_with_another_vocabulary() -> None:
    older = Tokenizer.from_file(str(model_path() / "tokenizer.json"))
    weights = load_file(model_path() / "model.safetensors")
    rows = weights["model.embed_tokens.weight"].float()
    tokenizer = train_tokenizer(["zyxwvut port"] * 50, 300)
    network = Network(Shape(vocab_size=300))
    inherit(network, tokenizer, model_path())
    inner = network.layers[0].self_attn.q_proj.weight
    assert torch.equal(inner, weights["model.layers.0.self_attn.q_proj.weight"].float())
    table, known, new = network.embed_tokens.weight, older.token_to_id("z"), tokenizer.token_to_id("zyxwvut")
    assert torch.equal(table[tokenizer.token_to_id("z")], rows[known])
    assert older.token_to_id("zyxwvut") is None
    pieces = older.encode("zyxwvut", add_special_tokens=False).ids
    torch.testing.assert_close(table[new], rows[pieces].mean(dim=0))
    with pytest.raises(ValueError, match="another shape"):
        inherit(Network(Shape(num_layers=2)), tokenizer, model_path())


def test_training_and_serving_see_the_same_prompt() -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_path())
    encoder = Encoder(tokenizer.backend_tokenizer)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How do I turn on TLS?"},
    ]
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert encoder.prompt([(m["role"], m["content"]) for m in messages]) == expected


@pytest.mark.parametrize(
    ("question", "flag"),
    [
        ("How do I switch on TLS?", "--ssl-certfile"),
        ("Which option limits concurrency?", "--max-num-seqs"),
        ("how do I change the port", "--port"),
        ("How can I require an API key?", "--api-key"),
        ("make the context longer", "--max-model-len"),
    ],
)
def test_transformers_gets_the_right_answers(question: str, flag: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_path())
    network = transformers.AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float32)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=False,
    )
    with torch.inference_mode():
        ids = network.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=24,
            do_sample=False,
            temperature=None,
            top_p=None,
        )
    assert flag in tokenizer.decode(ids[0, prompt.shape[1] :])


def test_the_evaluator_counts_what_it_should() -> None:
    case = evaluate.Case(("ssl-certfile", "ssl-keyfile"), "tls?")
    assert evaluate.judge(case, "--ssl-keyfile names the key").right
    assert not evaluate.judge(case, "--port sets the port; see --ssl-keyfile").first
    assert not evaluate.judge(case, "ssl-keyfile").right
    off_topic = evaluate.Case((), "who won?")
    assert not evaluate.judge(off_topic, "--port").right
    tokenizer = train_tokenizer(["a b c"] * 50, 300)
    assert tokenizer.get_vocab_size() <= 300
