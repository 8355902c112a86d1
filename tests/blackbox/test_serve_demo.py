"""The demo model through the real front, engine and prepare processes, with the real `openai` client."""

from __future__ import annotations

import json
import os
import re
import threading
import time
import urllib.request
from pathlib import Path

import openai
import pytest
from started import Server

QUESTION = [{"role": "user", "content": "How do I switch on TLS?"}]


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


def test_the_demo_model_answers_and_is_listed(server: Server, client: openai.OpenAI) -> None:
    models = client.models.list().data
    assert len(models) == 1
    assert client.models.retrieve(models[0].id).id == models[0].id
    answer = client.chat.completions.create(model=models[0].id, messages=QUESTION, temperature=0)
    text = answer.choices[0].message.content or ""
    assert "ssl-certfile" in text or "ssl-keyfile" in text
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None and answer.usage.completion_tokens > 3


def test_streamed_and_whole_answers_are_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="", messages=QUESTION, temperature=0, max_tokens=40)
    parts, usage, reasons = [], None, []
    stream = client.chat.completions.create(
        model="",
        messages=QUESTION,
        temperature=0,
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            parts.append(choice.delta.content or "")
            reasons += [choice.finish_reason] if choice.finish_reason else []
    assert "".join(parts) == whole.choices[0].message.content
    assert reasons == [whole.choices[0].finish_reason]
    assert usage is not None and whole.usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
    )


def test_seeded_sampling_does_not_depend_on_neighbours(client: openai.OpenAI) -> None:
    def ask(seed: int) -> str:
        answer = client.chat.completions.create(
            model="",
            messages=[{"role": "user", "content": "Which option do you like best?"}],
            temperature=2.0,  # and no top_p of the model's own: it is sure of what it says
            top_p=1.0,
            seed=seed,
            max_tokens=48,
        )
        return answer.choices[0].message.content or ""

    alone = [ask(seed) for seed in range(4)]
    together: dict[int, str] = {}
    threads = [threading.Thread(target=lambda s=seed: together.__setitem__(s, ask(s))) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[seed] for seed in range(4)] == alone
    assert len(set(alone)) == 4


def test_n_choices_and_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="",
        messages=QUESTION,
        n=3,
        temperature=1.0,
        seed=7,
        logprobs=True,
        top_logprobs=4,
        max_tokens=12,
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for choice in answer.choices:
        assert choice.logprobs is not None and choice.logprobs.content
        for token in choice.logprobs.content:
            values = [top.logprob for top in token.top_logprobs]
            assert len(values) == 4 and values == sorted(values, reverse=True)
            assert token.logprob <= values[0] + 1e-6


def test_completions_with_echo_and_token_ids(server: Server, client: openai.OpenAI) -> None:
    status, tokens = server.post("/tokenize", {"prompt": "vsrv serves models"})
    assert status == 200
    ids = tokens["tokens"]
    answer = client.completions.create(
        model="", prompt=ids, echo=True, logprobs=1, max_tokens=1, temperature=0
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.token_logprobs is not None
    assert answer.choices[0].text.startswith("vsrv serves models")
    assert len(logprobs.token_logprobs) == len(ids) + 1
    assert logprobs.token_logprobs[0] is None
    status, text = server.post("/detokenize", {"tokens": ids})
    assert (status, text["prompt"]) == (200, "vsrv serves models")


def test_stop_string_ends_text_and_usage(client: openai.OpenAI) -> None:
    whole = (
        client.chat.completions.create(model="", messages=QUESTION, temperature=0).choices[0].message.content
        or ""
    )
    stop = whole[10:14]
    cut = client.chat.completions.create(model="", messages=QUESTION, temperature=0, stop=[stop])
    assert cut.choices[0].message.content == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_refusals_are_precise(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(
            model="",
            messages=QUESTION,
            tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        )
    assert error.value.code == "unsupported_parameter"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="no-such-model", messages=QUESTION)
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model="", prompt=[10**6])
    assert error.value.param == "prompt"
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model="", prompt="word " * 20000)
    assert error.value.code == "context_length_exceeded"


def test_sixty_four_streams_and_quick_probes(server: Server, client: openai.OpenAI) -> None:
    failures: list[str] = []
    counts: list[int] = []

    def stream(seed: int) -> None:
        try:
            chunks = client.completions.create(
                model="",
                prompt=f"{seed} hello",
                max_tokens=48,
                stream=True,
                seed=seed,
                extra_body={"ignore_eos": True},
            )
            counts.append(sum(1 for _ in chunks))
        except openai.OpenAIError as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=stream, args=(seed,)) for seed in range(64)]
    for thread in threads:
        thread.start()
    answered = 0
    while any(thread.is_alive() for thread in threads):
        assert server.get("/livez")[0] == 200
        answered += 1
    for thread in threads:
        thread.join()
    assert not failures and len(counts) == 64
    assert answered > 0


def test_a_client_that_goes_away_frees_its_sequence(server: Server) -> None:
    body = json.dumps({"prompt": "hello", "max_tokens": 900, "ignore_eos": True, "stream": True}).encode()
    request = urllib.request.Request(
        server.url + "/v1/completions", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        assert response.readline().startswith(b"data:")
    end = time.monotonic() + 5
    while time.monotonic() < end and gauge(server, "vllm:num_requests_running") > 0:
        time.sleep(0.02)
    assert gauge(server, "vllm:num_requests_running") == 0


def gauge(server: Server, name: str) -> float:
    text = server.get("/metrics")[1].decode()
    found = re.search(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    assert found, f"{name} is not in /metrics"
    return float(found[1])


def test_the_front_process_never_loads_torch(server: Server) -> None:
    if server.process is None:
        pytest.skip("needs a server of our own")
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "libtorch" not in maps and "numba" not in maps and "numpy" not in maps
    engine = [
        pid for pid in children(server.process.pid) if "libtorch" in Path(f"/proc/{pid}/maps").read_text()
    ]
    assert len(engine) == 1


def children(pid: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry))
    return found


def test_exactly_one_listening_port(server: Server) -> None:
    if server.process is None:
        pytest.skip("needs a server of our own")
    inodes = set()
    for pid in [server.process.pid, *children(server.process.pid)]:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(fd)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                ports.add(int(fields[1].rsplit(":", 1)[1], 16))
    assert ports == {server.port}
