"""tests/gpu.sh itself, on the simulated device: its cases pass, a broken kernel fails them, and a report is made in every case."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
GPU = ROOT / "tests" / "gpu"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    command = [str(ROOT / "tests" / "gpu.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)


def events_of(body: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What is recorded of a part whose cases are made by the module `body` instead of attention_cases.py."""
    monkeypatch.syspath_prepend(str(GPU))
    import main

    (folder / "attention_cases.py").write_text(body)
    child = folder / "child.py"
    child.write_text(
        f"import sys\nsys.path.append({str(GPU)!r})\nimport main\nsys.path.insert(0, {str(folder)!r})\nsys.exit(main.main())\n"
    )
    monkeypatch.setattr(main, "CHILD", (sys.executable, str(child)))
    part = next(part for part in main.PARTS if part.name == "decode")
    events: list[dict[str, object]] = main.run_part(part, folder, 40.0, ["--simulate"])
    return events


@pytest.mark.timeout(300)  # under a minute on two free cores
def test_every_part_of_correctness_passes_in_the_simulator() -> None:
    """Seeded: the simulator's order of threads is shuffled all the same."""
    done = run("--simulate", "--seed", "3", "decode", "prefill", "elementwise", "sampling", "engine")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "0 cases failed" in done.stdout and "stopped early" not in done.stdout
    assert done.stdout.count("  ok ") >= 25


def test_figures_are_computed_from_what_runs() -> None:
    done = run("--simulate", "environment", "kernel-bench")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    for figure in (
        "decode attention, 8 x 2k",
        "prefill attention, head_dim 128",
        "sampling, 152k x 64, greedy",
    ):
        assert figure in done.stdout.rpartition("must")[2]


def test_an_unknown_part_is_refused() -> None:
    done = run("--simulate", "decod")
    assert done.returncode == 2 and "no such part: decod" in done.stdout


CASES = """
import os, time
from target import Case
def end(context): os._exit(9)
def fail(context): raise AssertionError("CUDA error: made")
def decode_cases(tiny):
    return [Case("good", lambda context: "fine"), Case("fails", fail), Case("ends", end), Case("after", lambda context: "fine")]
"""


def test_a_case_that_fails_or_ends_its_process_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = events_of(CASES, tmp_path, monkeypatch)
    cases = {event["case"]: event for event in events if event["kind"] == "case"}
    assert {name: case["ok"] for name, case in cases.items()} == {
        "good": True, "fails": False, "ends": False, "after": True,
    }  # fmt: skip
    assert "CUDA error: made" in str(cases["fails"]["detail"])
    assert "status 9" in str(cases["ends"]["detail"])


HANGS = """
import time
from target import Case
def decode_cases(tiny):
    return [Case("hangs", lambda context: time.sleep(99)), Case("after", lambda context: "fine")]
"""


def test_a_case_that_hangs_is_named_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(GPU))
    import main

    monkeypatch.setattr(main, "_LONGEST_CASE", 5.0)
    events = events_of(HANGS, tmp_path, monkeypatch)
    cases = {event["case"]: event for event in events if event["kind"] == "case"}
    assert not cases["hangs"]["ok"] and "hung" in str(cases["hangs"]["detail"])
    assert cases["after"]["ok"]


def test_a_part_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = events_of("raise OSError('no such library: made')\n", tmp_path, monkeypatch)
    [case] = [event for event in events if event["kind"] == "case"]
    assert (
        not case["ok"]
        and case["case"] == "start of the part"
        and "no such library: made" in str(case["detail"])
    )


def test_the_report_names_bars_and_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(GPU))
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    import report

    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    recorder = report.Recorder(tmp_path / "events", "part")
    recorder.figure("ratio", 1.2, "x", 1.3, 1.15, lower=True)
    recorder.figure("rate", 75.0, "%", 80, 90)
    recorder.figure("aimed", 95.0, "%", 80, 90)
    recorder.figure("free", 1.0, "s")
    recorder.write("case", case="bad", ok=False, detail="off by one", seconds=0.1, number=0)
    with open(tmp_path / "events", "a") as file:
        file.write('{"kind": "ca')  # killed while it wrote
    events = report.read_events(tmp_path / "events")
    figures = {event["name"]: event for event in events if event["kind"] == "figure"}
    assert [report.verdict(figures[name]) for name in ("ratio", "rate", "aimed", "free")] == [
        "must",
        "MISSED",
        "aim",
        "",
    ]
    table = report.table(events)
    assert "FAILED part: bad: off by one" in table and "MISSED" in table
    files = report.save(events, "NVIDIA H100 80GB HBM3 (a/b)", "2026-01-02")
    assert len(files) == 2 and {file.name for file in files} == {"2026-01-02-nvidia-h100-80gb-hbm3-a-b.json"}
    assert json.loads(files[0].read_text())["events"] == events


def test_parts_need_nothing_that_a_gpu_machine_lacks() -> None:
    """No HTTP side, no test tools, no simulator: these packages are not on the GPU machine, or need not be."""
    modules = "attention_cases elementwise_cases sampling_cases engine_cases environment kernel_bench step_bench throughput_bench start_bench peer"
    absent = "orjson cryptography llguidance openai h11 prometheus_client tokenizers jinja2 pytest greenlet psutil hypothesis simulated"
    code = f"""
import importlib, sys
for name in {absent.split()!r}:
    sys.modules[name] = None
sys.path[:0] = [{str(GPU)!r}, {str(GPU.parent / "cuda")!r}, {str(ROOT)!r}]
for name in {modules.split()!r}:
    importlib.import_module(name)
import environment
from vsrv.kernels.cuda.source import parse_arch
assert len(environment.specs(parse_arch("sm_90a"))) > 40
from vsrv.engine import worker
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_calls_are_timed_as_a_replayed_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU's way of timing with a fake of torch.cuda: the median of replays, over the number of calls; first use is left out."""
    monkeypatch.syspath_prepend(str(GPU))
    import contextlib
    from types import SimpleNamespace

    import target
    import torch

    now = [0.0]

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            self.at = -1.0

        def record(self) -> None:
            self.at = now[0]

        def elapsed_time(self, end: Event) -> float:
            return end.at - self.at

    def replay() -> None:
        now[0] += 6.0

    fakes = {
        "Event": Event, "synchronize": lambda: None, "CUDAGraph": lambda: SimpleNamespace(replay=replay),
        "graph": lambda graph: contextlib.nullcontext(), "is_current_stream_capturing": lambda: False,
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(target, "_RISING_S", 0.01)
    called: list[str] = []
    timed = target.Target("cpu", None, SimpleNamespace(), tiny=False)  # type: ignore[arg-type]
    assert (
        timed.time_ms([lambda: called.append("a"), lambda: called.append("b"), lambda: called.append("c")])
        == 2.0
    )
    assert called == ["a", "b", "c"] * 2, "once to load everything, once to be captured"


def test_parts_share_the_time_and_each_leaves_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process that the user starts, with parts that find made figures; the third has no time left."""
    monkeypatch.syspath_prepend(str(GPU))
    from argparse import Namespace

    import main
    import report

    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.delenv("OUT", raising=False)
    monkeypatch.setattr(main, "_gpu_name", lambda: "NVIDIA H200")
    now = [0.0]
    monkeypatch.setattr(main.time, "monotonic", lambda: now[0])
    figure = {"kind": "figure", "unit": "tokens/s", "must": None, "aim": None, "lower": False}
    found = {
        "throughput": [figure | {"name": report.OURS, "value": 300.0}],
        "start": [{"kind": "case", "case": "bad", "ok": False, "detail": "no", "seconds": 1.0}],
        "peer": [figure | {"name": report.THEIRS, "value": 200.0}],
    }

    def run_part(part: main.Part, folder: Path, budget: float, flags: list[str]) -> list[dict[str, object]]:
        assert flags == ["--seed", "5"] and budget <= part.budget
        now[0] += 40
        events = [{"part": part.name, **event} for event in found[part.name]]
        assert part.name == "throughput" or len(list(tmp_path.iterdir())) == 1, (
            "the part before left no report"
        )
        return events

    monkeypatch.setattr(main, "run_part", run_part)
    options = Namespace(parts=["throughput", "start", "peer"], seconds=200.0, simulate=False, seed=5)
    assert main.all_parts(options) == 1
    shown = capsys.readouterr().out
    assert (
        "over transformers' continuous batching" in shown
        and "1.5" in shown
        and "FAILED start: bad: no" in shown
    )
    now[0] = 0.0
    assert main.all_parts(Namespace(parts=["throughput", "peer"], seconds=42.0, simulate=False, seed=5)) == 0
    assert "peer: not run: 42 s are used up" in capsys.readouterr().out


def test_every_kernel_of_the_parts_is_compiled_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--compile` and the part environment take environment.specs; a kernel beside it would be missing on a machine without libnvvm."""
    monkeypatch.syspath_prepend(str(GPU))
    import environment
    import networks
    from simulated import SimulatedDevice

    from vsrv.kernels import HeadShape, KernelShapes
    from vsrv.kernels.cuda.operations import cuda_kernels

    device = SimulatedDevice("sm_90a")
    asked: set[object] = set()

    class Loader:
        def load_all(self, specs: list[object]) -> list[object]:
            asked.update(specs)
            return [None] * len(specs)

    widths = {
        *environment.WIDTHS,
        *(config["hidden_size"] for config in (networks.QWEN3_06B, networks.QWEN3_8B)),
    }
    for dtype in ("bfloat16", "float16"):
        for width in widths:
            for head_dim, activation in ((64, "silu"), (80, "gelu"), (128, "gelu_tanh"), (256, "silu")):
                for norms in (False, True):
                    shapes = KernelShapes(
                        dtype, width, 64, activation, norms, (HeadShape(4, 2, head_dim, 0.1),), 2, 16
                    )
                    cuda_kernels(device, Loader()).prepare(shapes)  # type: ignore[arg-type]
    assert asked <= set(environment.specs(device.arch))
