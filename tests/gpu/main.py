"""tests/gpu.sh: correctness, then figures, on a GPU machine that nobody can debug afterwards.

    tests/gpu.sh [PART …] [--seconds 540]   on a GPU; without one: the simulator and the compile gate
    tests/gpu.sh --simulate [PART …]        every part on the simulated device, with tiny shapes; figures mean nothing
    tests/gpu.sh --compile sm_90a           compile all kernels into build/gpu-cubins, to be carried to a machine without libnvvm

Each part is a process of its own, that writes what it finds line by line: a fault that ends a CUDA context, or a kernel that never ends,
costs its own case. The part is then started again behind that case. This process touches no GPU and always writes the report.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT / "tests" / "cuda"), str(ROOT)]

import report  # noqa: E402 - its place is only known to sys.path above
from report import Event, Recorder, say  # noqa: E402

CHILD = (sys.executable, __file__)  # how the process of a part is started
LOST = 3  # a child's exit status: the context is gone
_MOST_STARTS = 4  # of one part
_LONGEST_CASE = (
    110.0  # seconds after which a case counts as hanging; the longest are a cold compile and the peer
)
_GRACE = 30.0  # seconds that the last case of a part may run over its budget


@dataclass(frozen=True)
class Part:
    """`module:function` gives its cases; `budget` seconds, after which it stops before the next case and says so."""

    name: str
    cases: str
    budget: float


# the most valuable first: what is wrong, then the figures of the table in its order
PARTS = (
    Part("environment", "environment:environment_cases", 100),
    Part("decode", "attention_cases:decode_cases", 45),
    Part("prefill", "attention_cases:prefill_cases", 45),
    Part("elementwise", "elementwise_cases:elementwise_cases", 35),
    Part("sampling", "sampling_cases:sampling_cases", 45),
    Part("engine", "engine_cases:engine_cases", 75),
    Part("kernel-bench", "kernel_bench:bench_cases", 60),
    Part("step-bench", "step_bench:step_cases", 80),
    Part("throughput", "throughput_bench:throughput_cases", 75),
    Part("start", "start_bench:start_cases", 70),
    Part("peer", "throughput_bench:peer_cases", 75),
)


def main() -> int:
    options = _parse()
    if options.compile:
        from environment import compile_for

        return compile_for(options.compile)
    if options.child:
        return child(
            options.child, options.events, options.skip, options.until, options.simulate, options.seed
        )
    os.chdir(ROOT)  # helpers that compile are started as `python -m vsrv`
    unknown = set(options.parts) - {part.name for part in PARTS}
    if unknown:
        say(f"no such part: {', '.join(sorted(unknown))}; parts: {', '.join(part.name for part in PARTS)}")
        return 2
    if not options.simulate and not _has_gpu():
        return without_gpu()
    return all_parts(options)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/gpu.sh", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="all of them by default")
    parser.add_argument("--simulate", action="store_true", help="tiny shapes on the simulated device")
    parser.add_argument("--compile", metavar="ARCH", help="compile all kernels for this GPU, and end")
    parser.add_argument("--seconds", type=float, default=540.0, help="for everything together (default 540)")
    parser.add_argument(
        "--seed", type=int, help="of all inputs; new ones at each run by default, the report names them"
    )
    for name, kind in (("child", str), ("events", Path), ("skip", int), ("until", float)):
        parser.add_argument(
            f"--{name}", type=kind, default=0 if kind is int else None, help=argparse.SUPPRESS
        )
    return parser.parse_args()


# ---------------------------------------------------------------- the process of one part


def child(name: str, events: Path, skip: int, until: float, simulate: bool, options_seed: int | None) -> int:
    """Run the cases of a part from number `skip` on. `until` is a moment of the monotonic clock, which processes share."""
    from vsrv import boot

    boot.die_with_parent()  # it has a session of its own, so that no signal of the terminal reaches it
    out = Recorder(events, name)
    try:
        _run_cases(
            next(part for part in PARTS if part.name == name), out, skip, until, simulate, options_seed
        )
    except Exception as error:  # before or between cases: no compiler, no memory, a module that does not load
        traceback.print_exc(file=sys.stdout)
        out.write(
            "case", case="start of the part", ok=False, detail=_in_words(error, []), seconds=0.0, number=-1
        )
    out.write("done")
    sys.stdout.flush()
    return 0


def _run_cases(
    part: Part, out: Recorder, skip: int, until: float, simulate: bool, options_seed: int | None
) -> None:
    import torch
    from environment import open_target
    from target import Context

    seed = options_seed if options_seed is not None else time.time_ns() // 1_000_000 % 1_000_000_000
    context = Context(open_target(simulate), out, until)
    out.fact("seed", seed)
    module, function = part.cases.split(":")
    cases = getattr(importlib.import_module(module), function)(simulate)
    for number, case in enumerate(cases[skip:], skip):
        if time.monotonic() > until:
            out.note(
                f"stopped early: no time for {len(cases) - number} of {len(cases)} cases, from {case.name!r} on"
            )
            break
        out.write("begin", case=case.name, number=number)
        torch.manual_seed(seed + number)  # a case draws the same values whichever others ran before it
        began = time.monotonic()
        try:
            ok, detail = True, case.run(context)
        except Exception as error:  # every kind of failure is a result of this case, and the next one runs
            ok, detail = False, _in_words(error, list(context.target.launched))
            traceback.print_exc(file=sys.stdout)
        seconds = time.monotonic() - began
        out.write("case", case=case.name, ok=ok, detail=detail, seconds=seconds, number=number)
        say(f"  {'ok    ' if ok else 'FAILED'} {case.name}: {detail} ({seconds:.1f} s)")
        if not ok and context.target.is_lost():
            say("  the CUDA context is lost")
            sys.stdout.flush()
            os._exit(LOST)  # destructors of a lost context may hang
        context.target.clean()


def _in_words(error: Exception, launched: list[str]) -> str:
    text = f"{type(error).__name__}: {str(error).strip()[:600]}"
    is_device = any(word in text for word in ("CUDA", "cuda", "gpu_error", "kernel "))
    return f"{text} [launched last: {', '.join(launched)}]" if is_device and launched else text


# ---------------------------------------------------------------- the process that the user started


def all_parts(options: argparse.Namespace) -> int:
    began, stamp = time.monotonic(), time.strftime("%Y-%m-%d-%H%M%S")
    events: list[Event] = []
    files: list[Path] = []
    gpu = "simulated" if options.simulate else _gpu_name()
    chosen = [part for part in PARTS if not options.parts or part.name in options.parts]
    with tempfile.TemporaryDirectory(prefix="vsrv-gpu-") as folder:
        for part in chosen:
            left = began + options.seconds - time.monotonic()
            if left < 5:
                text = f"not run: {options.seconds:.0f} s are used up"
                say(f"{part.name}: {text}")
                events.append({"kind": "note", "part": part.name, "text": text})
                continue
            budget = part.budget * (4 if options.simulate else 1)  # the simulator is no faster than its host
            events += run_part(part, Path(folder), min(budget, left), _passed_on(options))
            if not options.simulate:  # after each part: this process may be ended from outside as well
                files = report.save([*events, *report.compared(events)], gpu, stamp)
    events += report.compared(events)
    if options.simulate:
        say("simulated: nothing is written, no figure means anything")
    for path in files:
        say(f"written: {path}")
    say(report.table(events))
    failed = [event for event in events if event["kind"] == "case" and not event["ok"]]
    say(f"{len(failed)} cases failed, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def _passed_on(options: argparse.Namespace) -> list[str]:
    seed = [] if options.seed is None else ["--seed", str(options.seed)]
    return [*seed, *(["--simulate"] if options.simulate else [])]


def run_part(part: Part, folder: Path, budget: float, flags: list[str]) -> list[Event]:
    """Start the part's process, and again behind a case that ended it; what it wrote, and what it could not write any more."""
    began = time.monotonic()
    until = began + budget
    path = folder / f"{part.name}.jsonl"
    skip = 0
    say(f"== {part.name} (at most {budget:.0f} s)")
    for _ in range(_MOST_STARTS):
        status = _run_child(part, path, skip, until, flags)
        events = report.read_events(path)
        if status == 0 and events and events[-1]["kind"] == "done":
            break
        skip = _blame(Recorder(path, part.name), events, status)
        if skip < 0:
            break
        if time.monotonic() > until:
            Recorder(path, part.name).note(
                f"stopped early: its process ended, cases from number {skip} on were not run"
            )
            break
    else:
        Recorder(path, part.name).note(
            f"given up after {_MOST_STARTS} starts, cases from number {skip} on were not run"
        )
    Recorder(path, part.name).write("end", seconds=time.monotonic() - began)
    return report.read_events(path)


def _run_child(part: Part, path: Path, skip: int, until: float, flags: list[str]) -> int | None:
    """The exit status; None if it had to be killed."""
    command = [
        *CHILD,
        "--child",
        part.name,
        "--events",
        str(path),
        "--skip",
        str(skip),
        "--until",
        str(until),
    ]
    process = subprocess.Popen([*command, *flags], start_new_session=True)
    began = time.time()
    while True:
        try:
            return process.wait(1.0)
        except subprocess.TimeoutExpired:
            # a case may run beyond the budget by its own length, once; nothing is written while a kernel hangs
            latest = max(began, path.stat().st_mtime) if path.exists() else began
            if time.time() - latest > _LONGEST_CASE or time.monotonic() > until + _GRACE:
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that the part has started
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)  # the driver may take its time to end a kernel
                return None


def _blame(out: Recorder, events: list[Event], status: int | None) -> int:
    """Record the case that ended the process, if it could not do so itself; the number of the next one to run, -1 for none."""
    how = "hung and was killed" if status is None else f"ended its process with status {status}"
    running = [event for event in events if event["kind"] in ("begin", "case")]
    if running and running[-1]["kind"] == "begin":
        case = running[-1]["case"]
        out.write("case", case=case, ok=False, detail=how, seconds=0.0, number=running[-1]["number"])
        say(f"  FAILED {case}: {how}")
        return int(running[-1]["number"]) + 1
    if running:
        out.note(f"the CUDA context was lost in {running[-1]['case']!r}; started again behind it")
        return int(running[-1]["number"]) + 1
    out.write("case", case="start of the part", ok=False, detail=how, seconds=0.0, number=-1)
    return -1


def _has_gpu() -> bool:
    """Asked in another process: this one must stay without a context."""
    code = "import torch, sys; sys.exit(0 if torch.cuda.is_available() else 1)"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _gpu_name() -> str:
    code = "import torch; print(torch.cuda.get_device_name(0))"
    asked = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    return asked.stdout.strip() or "unknown"


def without_gpu() -> int:
    """The simulator and the compile checks. Returns 0 unless one of these fails."""
    say(
        "no GPU that torch can use: running the simulator and the compile checks instead; there are no figures"
    )
    if importlib.util.find_spec("pytest") and importlib.util.find_spec("greenlet"):
        if os.environ.pop(
            "VSRV_GPU_CARRIED", None
        ):  # a copy for one run: these tests have their own, warm folder
            del os.environ["VSRV_CACHE_DIR"]
        return subprocess.run([sys.executable, "-m", "pytest", "-q", "tests/cuda"], check=False).returncode
    checks: list[Callable[[], int]] = [_compile_check]
    if importlib.util.find_spec("greenlet"):
        checks.append(
            lambda: (
                subprocess.run(
                    [sys.executable, __file__, "--simulate", "decode", "sampling"], check=False
                ).returncode
            )
        )
    else:
        say("greenlet is not installed: the simulator cannot run (pip install greenlet)")
    return max(check() for check in checks)


def _compile_check() -> int:
    from vsrv.errors import ConfigError

    try:
        from environment import compile_for

        return compile_for("sm_90a")
    except (ConfigError, ImportError) as error:
        say(f"kernels cannot be compiled here: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
