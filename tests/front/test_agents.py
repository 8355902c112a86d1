"""Codex and Claude Code themselves, unmodified, over a scripted model: they think, run a command, and read its output.

`VSRV_CODEX=…/codex VSRV_CLAUDE=…/claude python -m pytest -m slow tests/front/test_agents.py`, with the programs of the npm packages
@openai/codex and @anthropic-ai/claude-code. They talk to the loopback interface alone and may run nothing but `echo`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Setup, Site, save_tokenizer

from vsrv.messages import Frame, Generate

# In the manner of Qwen3's: hermes calls, and thinking that is kept while tools are used.
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}"
    '<tool_call>{"name": …, "arguments": …}</tool_call><|im_end|>\n{% endif %}'
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COMMAND = "echo from-the-shell"


def call(name: str, arguments: dict[str, Any]) -> str:
    table = json.dumps({"name": name, "arguments": arguments})
    return f"<think>\nI look first.\n</think>\n\n<tool_call>\n{table}\n</tool_call>"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Says `replies` one after the other, the last one for ever."""
    save_tokenizer(tmp_path)
    site = Site(tmp_path, Setup(template=TEMPLATE, facts={"max_model_len": 400_000}, keep_alive_s=5.0))
    engine, send = site.engine, site.engine._send

    def scripted(frame: Frame) -> None:
        if isinstance(frame, Generate):
            engine.reply = site.replies[min(len(engine.generates), len(site.replies) - 1)]  # type: ignore[attr-defined]
        send(frame)

    monkeypatch.setattr(engine, "_send", scripted)
    yield site
    site.stop()


def prompt_of(site: Site) -> str:
    return site.tokenizer.decode(site.engine.generates[-1].prompt_token_ids.tolist(), False)


def run(command: list[str], folder: Path, **variables: str) -> str:
    place = folder / "work"
    place.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **variables}
    done = subprocess.run(
        command,
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_codex(site: Site, tmp_path: Path) -> None:
    program = os.environ.get("VSRV_CODEX") or pytest.skip("VSRV_CODEX names no program")
    site.replies = [call("exec_command", {"cmd": COMMAND}), "The shell has spoken."]  # type: ignore[attr-defined]
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex" / "config.toml").write_text(
        'model = "m"\nmodel_provider = "vsrv"\n[model_providers.vsrv]\nname = "vsrv"\nwire_api = "responses"\n'
        f'env_key = "VSRV_KEY"\nbase_url = "http://127.0.0.1:{site.port}/v1"\n'
    )
    told = run(
        [program, "exec", "--skip-git-repo-check", "--sandbox", "read-only", "look"], tmp_path, VSRV_KEY="x"
    )
    assert "The shell has spoken." in told
    after = prompt_of(site).rpartition("<think>I look first.</think>")[2]
    assert (
        COMMAND in after
        and "<|im_start|>tool\n" in after
        and "from-the-shell\n" in after.partition("<|im_start|>tool")[2]
    )


@pytest.mark.slow
def test_claude_code(site: Site, tmp_path: Path) -> None:
    program = os.environ.get("VSRV_CLAUDE") or pytest.skip("VSRV_CLAUDE names no program")
    site.replies = [call("Bash", {"command": COMMAND, "description": "say"}), "The shell has spoken."]  # type: ignore[attr-defined]
    models = dict.fromkeys(
        (
            "ANTHROPIC_MODEL",
            "ANTHROPIC_DEFAULT_HAIKU_MODEL",
            "ANTHROPIC_DEFAULT_SONNET_MODEL",
            "ANTHROPIC_DEFAULT_OPUS_MODEL",
        ),
        "m",
    )
    told = run(
        [program, "-p", "look", "--allowedTools", "Bash(echo:*)"],
        tmp_path,
        ANTHROPIC_BASE_URL=f"http://127.0.0.1:{site.port}",
        ANTHROPIC_AUTH_TOKEN="x",
        CLAUDE_CODE_MAX_CONTEXT_TOKENS="400000",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
        **models,
    )
    assert told.strip() == "The shell has spoken."
    after = prompt_of(site).rpartition("<think>I look first.</think>")[2]
    assert COMMAND in after and "<|im_start|>tool\nfrom-the-shell" in after
