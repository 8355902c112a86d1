"""Options that only a running server shows: one start with all of them at once."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from started import start

from vsrv import demo


def test_options_do_what_they_say(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(demo.model_path() / name, tmp_path)
    # a template of its own, so that it can be seen which folder was read
    template = (
        "{{ '<|im_start|>user\n' + messages[0].content + ' ' * 40 + '<|im_end|>\n<|im_start|>assistant\n' }}"
    )
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    server = start(
        "--tokenizer", str(tmp_path), "--disable-fastapi-docs", "--fingerprint-mode", "none", "--log-stats-interval", "0.2",
        "--kv-cache-dtype", "bfloat16", "--enable-tokenizer-info-endpoint", "--any-model-name",
    )  # fmt: skip
    try:
        server.wait_ready()
        body = {
            "messages": [{"role": "user", "content": "Which port?"}],
            "max_tokens": 40,
            "ignore_eos": True,
        }
        status, answer = server.post("/v1/chat/completions", body)
        assert status == 200 and answer["system_fingerprint"] is None
        status, answer = server.post("/v1/chat/completions", {**body, "model": "gpt-4", "max_tokens": 1})
        assert status == 200 and answer["model"] == "demo", "it says which model it was"
        _, tokens = server.post("/tokenize", {"messages": body["messages"]})
        _, plain = server.post("/tokenize", {"prompt": "Which port?"})
        assert tokens["count"] > plain["count"] + 6, "forty spaces more than the model's own template"  # type: ignore[operator]
        assert server.get("/openapi.json")[0] == 404
        # lm-evaluation-harness reads these of /tokenizer_info: eos_token, bos_token, pad_token, chat_template
        told = json.loads(server.get("/tokenizer_info")[1])
        assert told["chat_template"] == template and told["eos_token"] == config["eos_token"]
        assert told["tokenizer_class"] == config.get("tokenizer_class", "PreTrainedTokenizerFast")
        end = time.monotonic() + 10
        while "generated tokens a second" not in server.log():
            assert time.monotonic() < end, server.log()
            time.sleep(0.1)
    finally:
        assert server.stop() == 0
