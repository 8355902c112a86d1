"""MODEL → folder: local folders, and hub ids against a local stand-in for HF_ENDPOINT, cache first and offline."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vsrv.errors import ConfigError, UnsupportedModelError
from vsrv.hub import HubOptions, is_complete, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "tokenizer.json": b"{}",
    "model.safetensors": b"w" * 300_000,
    "pytorch_model.bin": b"never fetched",
    "consolidated.safetensors": b"never fetched",
    "consolidated-00001-of-00002.safetensors": b"never fetched",
    "original/model.safetensors": b"never fetched",
    "onnx/config.json": b"never fetched",
}


class Hub:
    """The few routes of the hub that a snapshot needs. `requests` lists (method, path, authorization)."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str]] = []
        self.gated = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                hub.requests.append((self.command, self.path, self.headers.get("Authorization", "")))
                status, headers, body = hub.answer(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        parts = path.partition("?")[0].strip("/").split("/")
        if parts[:4] == ["api", "models", "acme", "tiny"]:
            if parts[4:5] == ["tree"]:
                listing = [
                    {"type": "file", "path": n, "size": len(b), "oid": "0" * 40} for n, b in FILES.items()
                ]
                return 200, {"Content-Type": "application/json"}, json.dumps(listing).encode()
            if parts[5:6] == ["no-such-branch"]:
                return 404, {"X-Error-Code": "RevisionNotFound"}, b""
            facts = {"id": "acme/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
            return 200, {"Content-Type": "application/json"}, json.dumps(facts).encode()
        name = "/".join(parts[4:])
        if parts[:3] == ["acme", "tiny", "resolve"] and name in FILES:
            body = FILES[name]
            if self.gated:
                return 403, {"X-Error-Code": "GatedRepo"}, b""
            etag = f'"{hashlib.sha1(body).hexdigest()}"'
            return 200, {"ETag": etag, "X-Repo-Commit": COMMIT}, body
        return 404, {"X-Error-Code": "RepoNotFound"}, b""


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.server.shutdown()
    made.server.server_close()


def run(tmp_path: Path, endpoint: str, model: str, **options: object) -> list[str]:
    """resolve() in a process of its own, because the hub's library reads its variables once → printed lines."""
    code = (
        "import sys, json; from pathlib import Path; from vsrv.hub import *; from vsrv.errors import UserError, ConfigError\n"
        "model, options = json.loads(sys.argv[1])\n"
        "try:\n"
        "    print('FOLDER', resolve(model, HubOptions(**options), print))\n"
        "except (ConfigError, UserError) as error:\n"
        "    print('ERROR', error)\n"
    )
    environment = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([model, options])],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_download_shows_progress_and_the_second_time_touches_no_network(tmp_path: Path, hub: Hub) -> None:
    lines = run(tmp_path, hub.url, "acme/tiny", token="hf_secret")
    assert lines[0] == "acme/tiny is not in the cache: downloading"
    assert any("of" in line and "acme/tiny:" in line for line in lines[1:-1]), lines
    folder = Path(lines[-1].removeprefix("FOLDER "))
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    kept = {name for name, data in FILES.items() if data != b"never fetched"}
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()} == kept
    asked = {path.partition("/resolve/")[2].partition("/")[2] for _, path, _ in hub.requests}
    assert asked - {""} == kept
    assert all(key == "Bearer hf_secret" for _, _, key in hub.requests)
    hub.requests.clear()
    assert run(tmp_path, hub.url, "acme/tiny") == [f"FOLDER {folder}"]
    assert hub.requests == []
    # and with nothing listening at all
    assert run(tmp_path, "http://127.0.0.1:9", "acme/tiny") == [f"FOLDER {folder}"]


def test_download_dir_and_failures_say_what_to_do(tmp_path: Path, hub: Hub) -> None:
    lines = run(tmp_path, hub.url, "acme/tiny", download_dir=str(tmp_path / "models"))
    assert lines[-1].startswith(f"FOLDER {tmp_path / 'models'}")
    assert "--revision" in run(tmp_path, hub.url, "acme/tiny", revision="no-such-branch")[-1]
    assert "no model acme/other" in run(tmp_path, hub.url, "acme/other")[-1]
    hub.gated = True
    assert "gated" in run(tmp_path, hub.url, "acme/tiny")[-1]
    assert "cannot be reached" in run(tmp_path, "http://127.0.0.1:9", "acme/never-seen")[-1]


def test_an_interrupted_download_is_completed(tmp_path: Path, hub: Hub) -> None:
    folder = Path(run(tmp_path, hub.url, "acme/tiny")[-1].removeprefix("FOLDER "))
    (folder / "model.safetensors").unlink()
    assert run(tmp_path, hub.url, "acme/tiny")[-1] == f"FOLDER {folder}"
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_local_folders_and_what_is_no_model(tmp_path: Path) -> None:
    assert resolve(str(tmp_path), HubOptions(), print) == tmp_path
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(UnsupportedModelError, match="is a file"):
        resolve(str(tmp_path / "model.gguf"), HubOptions(), print)
    for name in ("./missing", "/missing/folder", "no-slash", "a/b/c", "~/missing-model-folder"):
        with pytest.raises(ConfigError, match="no such folder"):
            resolve(name, HubOptions(), print)


def test_completeness_follows_the_index(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        assert not is_complete(tmp_path)
        (tmp_path / name).write_text("{}")
    assert not is_complete(tmp_path)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1.safetensors").touch()
    assert not is_complete(tmp_path)
    (tmp_path / "model-2.safetensors").touch()
    assert is_complete(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("not json")
    assert not is_complete(tmp_path)
