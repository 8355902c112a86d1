"""Several kernels compiled side by side, by helper processes that fill the cache.

Processes, because numba compiles under one lock; started as vsrv's internal command `_compile` and not by multiprocessing, so that they run
from an archive as well. A helper reads one task a line (JSON) and answers each with a line; the end of its input is its end.
A kernel that a helper cannot import by name (a test's) is compiled by the caller.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

from vsrv import archive, boot, host
from vsrv.errors import ConfigError
from vsrv.kernels.cuda.cache import PACKAGE, CubinCache
from vsrv.kernels.cuda.source import Arch, KernelSpec, parse_arch, specialise

Progress = Callable[[str], None]
Task = tuple[KernelSpec, Arch]
_MAX_HELPERS = 16  # each takes about 270 MB and some seconds to start


def cubins(cache: CubinCache, specs: Sequence[KernelSpec], progress: Progress) -> dict[KernelSpec, bytes]:
    """The cubins of `specs`; what nobody has compiled before is compiled now. Raises ConfigError."""
    found = {spec: cache.find(spec) for spec in specs}
    missing = [spec for spec, cubin in found.items() if cubin is None]
    if missing:
        compile_all([(spec, cache.arch) for spec in missing], progress)
    return {spec: cache.get(spec) if cubin is None else cubin for spec, cubin in found.items()}


def compile_all(tasks: Sequence[Task], progress: Progress) -> None:
    """Compile into the cache folder, whatever is there already. Raises the first ConfigError."""
    distant = [task for task in tasks if _has_name(task[0])]
    count = min(len(distant), host.num_cores(), _MAX_HELPERS)
    # one kernel is compiled faster here than a helper starts
    near = [task for task in tasks if count < 2 or task not in distant]
    began, done = time.monotonic(), 0
    kernels = "a GPU kernel" if len(tasks) == 1 else f"{len(tasks)} GPU kernels, {max(count, 1)} at a time"
    progress(f"compiling {kernels}")

    def report(task: Task) -> None:
        nonlocal done
        done += 1
        spec, arch = task
        progress(
            f"compiled {spec.label} for {arch.name}, {done} of {len(tasks)}, {time.monotonic() - began:.1f} s"
        )

    if count >= 2:
        for task in _by_helpers(distant, count):
            report(task)
    for spec, arch in near:
        CubinCache(arch).compile(spec)
        report((spec, arch))


def _has_name(spec: KernelSpec) -> bool:
    """Whether a helper can import the factory; it imports nothing but vsrv's kernels."""
    return spec.factory.__module__.startswith(f"{PACKAGE}.") and "." not in spec.factory.__qualname__


def _by_helpers(tasks: Sequence[Task], count: int) -> Iterator[Task]:
    """Yields tasks as they are done."""
    idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()

    def run(task: Task) -> Task:
        helper = idle.get()
        try:
            _ask(helper, task)
        finally:
            # a dead one too: whoever takes it sees that, while a missing one would be waited for
            idle.put(helper)
        return task

    with _helpers(count) as helpers, ThreadPoolExecutor(count) as threads:
        for helper in helpers:
            idle.put(helper)
        futures = [threads.submit(run, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            # the threads wait for their helpers: end those, and what has not begun never will
            threads.shutdown(wait=False, cancel_futures=True)
            for helper in helpers:
                helper.kill()
            raise


@contextmanager
def _helpers(count: int) -> Iterator[list[subprocess.Popen[str]]]:
    helpers: list[subprocess.Popen[str]] = []
    try:
        for _ in range(count):
            command = boot.child_command("_compile")
            helper = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=archive.inherited(),
            )
            helpers.append(helper)
        yield helpers
    finally:
        for helper in helpers:
            helper.kill()  # it is idle, and what it has stored is complete
            helper.communicate()


def _ask(helper: subprocess.Popen[str], task: Task) -> None:
    spec, arch = task
    assert helper.stdin is not None and helper.stdout is not None
    try:
        helper.stdin.write(json.dumps(_line(spec, arch)) + "\n")
        helper.stdin.flush()
    except BrokenPipeError:
        answer = ""  # as when it ends later
    else:
        answer = helper.stdout.readline()
    if not answer:
        raise ConfigError(
            f"the process that compiles {spec.label} ended with status {helper.wait()}; its words are in the log"
        )
    refusal = json.loads(answer)["refusal"]
    if refusal is not None:
        raise ConfigError(refusal)


def _line(spec: KernelSpec, arch: Arch) -> dict[str, Any]:
    return {
        "module": spec.factory.__module__,
        "factory": spec.factory.__qualname__,
        "parameters": dict(spec.parameters),
        "arch": arch.name,
        "key": CubinCache(arch).key(spec),
    }


# ---------------------------------------------------------------- in the helper


def main() -> int:
    """The internal command `_compile`."""
    boot.die_with_parent()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a compiler prints must not be taken for an answer
    for line in sys.stdin:
        try:
            _compile(json.loads(line))
            refusal = None
        except ConfigError as error:
            refusal = str(error)
        print(json.dumps({"refusal": refusal}), file=answers, flush=True)
    return 0


def _compile(task: dict[str, Any]) -> None:
    if not task["module"].startswith(f"{PACKAGE}."):
        raise ConfigError(f"{task['module']} holds no kernels of vsrv")
    factory = getattr(importlib.import_module(task["module"]), task["factory"])
    spec = specialise(factory, **{name: _tuples(value) for name, value in task["parameters"].items()})
    cache = CubinCache(parse_arch(task["arch"]))
    if cache.key(spec) != task["key"]:
        raise ConfigError(f"{spec.label}: the files of vsrv have changed since it started; start it again")
    cache.compile(spec)


def _tuples(value: Any) -> Any:
    """JSON has no tuples, parameters have no lists."""
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
