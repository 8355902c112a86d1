"""`vsrv check` names every problem at once, each with what mends it, and starts nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from vsrv import certificates, cli, demo, keys
from vsrv.check import check, device
from vsrv.check.finding import Finding, Report, as_json, as_text
from vsrv.config import EngineConfig, ServeConfig, combine
from vsrv.engine.memory import Room
from vsrv.kernels.facts import kernel_facts
from vsrv.keyfile import KeyFile, RateLimits, write_key_file
from vsrv.models import read_spec
from vsrv.options import OPTIONS


def report_of(*words: str) -> Report:
    def resolved() -> ServeConfig:
        return combine(cli.parse(["--port", "0", *words]), {})

    return check(resolved)


def found(report: Report, topic: str) -> Finding:
    """The worst finding of a topic."""
    order = {"error": 0, "warning": 1, "ok": 2}
    return min((f for f in report.findings if f.topic == topic), key=lambda finding: order[finding.level])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the demo model that a test may break."""
    copy = tmp_path / "model"
    shutil.copytree(demo.model_path(), copy, ignore=shutil.ignore_patterns("*.py", "*.tsv", "__pycache__"))
    return copy


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_good_configuration() -> None:
    report = report_of()
    assert report.num_errors == 0 and not [f for f in report.findings if f.level == "error"]
    topics = "settings keys TLS address limits model weights tokenizer template device memory"
    assert {f.topic for f in report.findings} >= set(topics.split())
    # 3 million parameters of the demo, in bfloat16
    spec = read_spec(demo.model_path(), {})
    assert report.budget["weight_bytes"] == 2 * spec.num_parameters
    assert report.budget["max_model_len"] == spec.max_position_embeddings
    assert any(line.startswith("activations") for line in report.budget_lines)
    assert "vsrv serve would start" in as_text(report)


def test_no_flag_that_is_named_is_unknown(folder: Path) -> None:
    """Whatever a fix says can be put on the command line."""
    names = {f"--{option.name}" for option in OPTIONS}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        report = report_of("--port", port, "--max-model-len", "1024", "--num-gpu-blocks-override", "3")
    fixes = [finding.fix for finding in report.findings if finding.level == "error"]
    assert len(fixes) == 2
    for fix in fixes:
        flag, value = fix.split()
        assert flag in names
        cli.parse([flag, value])


def test_a_port_in_use_names_its_holder_and_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finding = found(report_of("--port", str(port)), "address")
        assert finding.level == "error" and f"process {os.getpid()}" in finding.message
        flag, other = finding.fix.split()
        assert flag == "--port" and int(other) != port
        socket.create_server(("127.0.0.1", int(other))).close()
    assert found(report_of("--port", str(port)), "address").level == "ok"
    assert "no address" in found(report_of("--host", "192.0.2.1", "--api-key", "secret"), "address").message


def test_unix_sockets(tmp_path: Path) -> None:
    assert found(report_of("--uds", str(tmp_path / "s")), "address").level == "ok"
    (tmp_path / "f").write_text("")
    assert "no socket" in found(report_of("--uds", str(tmp_path / "f")), "address").message
    assert found(report_of("--uds", str(tmp_path / "none" / "s")), "address").level == "error"


def test_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = certificates.make(certificates.CertificateWish(tmp_path, ("a.example", "10.0.0.1"), days=30))
    words = ("--ssl-certfile", str(made.certificate), "--ssl-keyfile", str(made.key))
    finding = found(report_of(*words), "TLS")
    assert finding.level == "ok" and "a.example, 10.0.0.1" in finding.message
    made.key.chmod(0o644)
    assert found(report_of(*words), "TLS").fix == f"chmod 600 {made.key}"
    made.key.chmod(0o600)
    now = time.time()
    monkeypatch.setattr("vsrv.check.surroundings.time.time", lambda: now + 20 * 86400)
    assert found(report_of(*words), "TLS").level == "warning"
    monkeypatch.setattr("vsrv.check.surroundings.time.time", lambda: now + 40 * 86400)
    finding = found(report_of(*words), "TLS")
    assert finding.level == "error" and "expired" in finding.message
    monkeypatch.setattr("vsrv.check.surroundings.time.time", lambda: now - 40 * 86400)
    finding = found(report_of(*words), "TLS")
    assert finding.level == "error" and "not valid before" in finding.message
    assert found(report_of(*words, "--ssl-ca-certs", "/no.pem"), "TLS").fix == "--ssl-ca-certs FILE"
    finding = found(report_of("--ssl-certfile", str(made.ca), "--ssl-keyfile", str(made.key)), "TLS")
    assert finding.level == "error" and "is not the key of" in finding.message


def test_key_files(tmp_path: Path) -> None:
    path, now = tmp_path / "keys.toml", datetime.now(UTC)
    contents = KeyFile()
    for name, expires in (("gone", -1), ("soon", 3), ("later", 90)):
        end = now + timedelta(days=expires)
        wanted = keys.NewKey(name, "", ("inference",), end, RateLimits(), False, "")
        contents, _ = keys.with_new(contents, wanted, now)
    write_key_file(path, contents)
    finding = found(report_of("--api-key-file", str(path)), "keys")
    assert (
        finding.level == "warning" and "2 active, 1 expired" in finding.message and "soon" in finding.message
    )
    assert finding.fix == f"vsrv keys rotate soon --api-key-file {path}"
    path.write_text('[[keys]]\nid = "c"\nclient_cert = "CN=c"\n')
    unasked = [f for f in report_of("--api-key-file", str(path)).findings if f.topic == "keys"]
    assert [f.level for f in unasked] == ["ok", "warning"] and "--ssl-cert-reqs" in (unasked[1].fix or "")
    made = certificates.make(certificates.CertificateWish(tmp_path / "c"))
    tls = ["--ssl-certfile", str(made.certificate), "--ssl-keyfile", str(made.key)]
    tls += ["--ssl-ca-certs", str(made.ca), "--ssl-cert-reqs", "1"]
    asked = report_of("--api-key-file", str(path), *tls)
    assert [f.level for f in asked.findings if f.topic == "keys"] == ["ok"]
    path.write_text("keys = 3\n")
    assert found(report_of("--api-key-file", str(path)), "keys").level == "error"
    assert found(report_of("--api-key-file", str(tmp_path / "none")), "keys").level == "error"
    open_to_all = report_of("--host", "0.0.0.0", "--allow-unauthenticated")
    assert found(open_to_all, "keys").level == "warning" and found(open_to_all, "TLS").level == "warning"


@pytest.mark.parametrize(
    ("file", "values", "topic", "match"),
    [
        ("config.json", {"architectures": ["NoSuchModel"]}, "model", "NoSuchModel is not supported"),
        ("config.json", {"num_hidden_layers": 99}, "weights", "tensors are missing: model.layers"),
        ("config.json", {"num_hidden_layers": 1}, "weights", "that Qwen3ForCausalLM does not have: model.layers"),
        ("config.json", {"intermediate_size": 96}, "weights", "another shape"),
        ("tokenizer_config.json", {"chat_template": "{% if %}"}, "template", "chat template"),
        ("tokenizer.json", {"model": None}, "tokenizer", "cannot read"),
        ("generation_config.json", {"temperature": -1}, "sampling", "temperature"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_model(
    folder: Path, file: str, values: dict[str, Any], topic: str, match: str
) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    change(folder / file, **values)
    finding = found(report_of(str(folder)), topic)
    assert finding.level == ("warning" if topic == "sampling" else "error")
    assert match in finding.message


def test_incomplete_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1])
    assert "cannot read" in found(report_of(str(folder)), "weights").message
    weights.unlink()
    assert "neither model.safetensors" in found(report_of(str(folder)), "weights").message
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert "safetensors only" in found(report_of(str(folder)), "weights").message
    assert found(report_of(str(folder), "--load-format", "dummy"), "weights").level == "ok"


def test_a_model_that_is_not_here(tmp_path: Path) -> None:
    assert found(report_of(str(tmp_path)), "model").level == "error"
    assert found(report_of("./nothing"), "model").level == "error"
    report = report_of("acme/not-in-the-cache", "--download-dir", str(tmp_path))
    assert found(report, "model").level == "warning" and not report.budget


def test_memory_that_does_not_suffice() -> None:
    words = ("--num-gpu-blocks-override", "3")
    finding = found(report_of("--max-model-len", "1024", *words), "memory")
    assert (finding.level, finding.fix) == ("error", "--max-model-len 96")
    # what the fix says does start; so does auto, which says what it costs
    assert found(report_of("--max-model-len", "96", *words), "memory").level == "ok"
    report = report_of("--max-model-len", "auto", *words)
    assert report.budget["max_model_len"] == 96 and found(report, "memory").level == "warning"
    finding = found(report_of("--max-model-len", "100000"), "memory")
    assert finding.fix == "--max-model-len 2048"


def test_the_budget_of_a_gpu() -> None:
    spec = read_spec(demo.model_path(), {})
    room = Room(8 << 30, 1.0, 256, 8192, fills=True, reserve_bytes=1 << 30, workers="a GPU")
    checked = device.CheckedDevice((), "cuda", room)
    findings, budget = device.check_memory(EngineConfig("m"), spec, checked)
    assert budget is not None and findings[0].level == "ok"
    block = kernel_facts("cuda").block_size
    assert budget.num_blocks * block // spec.max_position_embeddings > 256, "8 GiB are plenty for the demo"
    findings, budget = device.check_memory(
        EngineConfig("m"), spec, device.CheckedDevice((), "cuda", Room(1 << 20, 1.0, 1, 1, fills=True))
    )
    assert budget is None and "the weights need" in findings[0].message
    findings, _ = device.check_memory(EngineConfig("m", dtype="float32"), spec, checked)
    assert findings[0].fix == "--dtype bfloat16"


def test_a_gpu_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, smi = tmp_path / "version", tmp_path / "nvidia-smi"
    driver.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 03:32:03 UTC 2025\nGCC version: 12\n"
    )
    smi.write_text("#!/bin/sh\necho '17, /usr/bin/python3, 3052'\necho 'no numbers here'\n")
    smi.chmod(0o755)
    monkeypatch.setattr(device, "_DRIVER", driver)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device.driver_version() == "570.86.15"
    assert device.memory_holders() == ["process 17 (python3, 3052 MiB)"]
    passed_by = device.check_device(EngineConfig("m"))
    assert passed_by.name == "cpu" and "570.86.15" in passed_by.findings[1].message
    wanted = device.check_device(EngineConfig("m", device="cuda"))
    assert wanted.room is None and wanted.findings[0].fix == "--device cpu"
    assert "process 17" in wanted.findings[1].message
    assert device.check_memory(EngineConfig("m"), read_spec(demo.model_path(), {}), wanted) == ([], None)


def test_more_threads_than_cores_are_told() -> None:
    cores = len(os.sched_getaffinity(0))
    said = found(report_of("--threads", str(cores + 1)), "device")
    assert said.level == "warning" and said.message.startswith(f"{cores + 1} threads share the ")
    assert said.fix.startswith("--threads ")
    assert found(report_of("--threads", "1"), "device").level == "ok"


def test_settings_that_do_not_fit_together_are_all_told() -> None:
    report = report_of("--host", "0.0.0.0", "--ssl-certfile", "c.pem", "--fingerprint-mode", "custom")
    said = [finding for finding in report.findings if (finding.topic, finding.level) == ("settings", "error")]
    assert [finding.fix for finding in said] == ["--api-key-file FILE", "--ssl-keyfile FILE", ""]
    assert found(report, "memory").level == "ok", "the rest is looked at all the same"
    assert "would not start: 3 errors, 1 warning" in as_text(report)


def test_a_setting_that_cannot_be_read_ends_the_check() -> None:
    report = report_of("--max-model-len", "many")
    assert [finding.topic for finding in report.findings] == ["settings"] and report.num_errors == 1
    assert "would not start: 1 error, no warnings" in as_text(report)


def test_command_line_and_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vsrv", "check", "--port", "0", "--api-key", "hush-hush", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert table["ok"] and table["settings"]["port"]["source"] == "command line"
    assert "hush" not in done.stdout and table["budget"]["num_blocks"] > 0
    assert {entry["level"] for entry in table["findings"]} <= {"ok", "warning", "error"}
    done = subprocess.run([*command, "--prot", "1"], capture_output=True, text=True, timeout=120, check=False)
    assert (
        done.returncode == 78 and "did you mean --port" in json.loads(done.stdout)["findings"][0]["message"]
    )
    empty = Report((Finding("settings", "ok", "é\n"),))
    assert json.loads(as_json(empty))["findings"][0]["message"] == "é\n"


def test_sharded_weights(folder: Path) -> None:
    """The hub's layout: an index that says which file has which tensor."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {name: f"model-{index % 2 + 1:05}-of-00002.safetensors" for index, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in tensors if files[name] == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    assert found(report_of(str(folder)), "weights").message.startswith(f"{len(tensors)} tensors")
    first = min(files)
    index.write_text(
        json.dumps({"weight_map": files | {first: next(f for f in files.values() if f != files[first])}})
    )
    finding = found(report_of(str(folder)), "weights")
    assert finding.level == "error" and first in finding.message, "the index says another file"
    (folder / files[first]).unlink()
    assert "is named by the index but missing" in found(report_of(str(folder)), "weights").message
