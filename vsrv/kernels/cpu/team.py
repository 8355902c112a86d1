"""A team of threads that runs one kernel at a time, each member on its share.

numba's own layers do not fit: workqueue costs 130 µs a call and omp fights with torch's OpenMP (24 to 140 times slower attention).
Members wait for the next job by spinning shortly, then yielding the core (the front process shares it), then parking in a semaphore.
A job is a kernel number and a row of int64 arguments; it cannot raise, so its arguments are checked before.
"""

from __future__ import annotations

import platform
import threading
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from vsrv.kernels.cpu.attention import attention, rope_cache
from vsrv.kernels.cpu.elementwise import embedding, gated, rms_norm
from vsrv.kernels.cpu.gemm import linear
from vsrv.kernels.cpu.intrinsics import atomic_add, atomic_load, atomic_store, pointer_i64
from vsrv.kernels.cpu.packing import fill_panels, pack_panels
from vsrv.kernels.cpu.sampling import logprobs, sample

LINEAR, EMBEDDING, RMS_NORM, GATED, ROPE_CACHE, ATTENTION, SAMPLE, LOGPROBS, PACK, FILL = range(10)
MAX_ARGUMENTS = 48
_EPOCH, _DONE, _JOB, _STOP, _ARGUMENTS, _PARKED = (
    0,
    8,
    16,
    17,
    24,
    80,
)  # int64 indices; hot ones a cache line apart
_SPINS, _YIELDS = 3000, 200  # about 60 µs of spinning, then about 100 µs of giving way, then park
_sched_yield = types.ExternalFunction("sched_yield", types.int32())


@intrinsic
def _pause(typing_context):  # type: ignore[no-untyped-def]
    """Tell the core that this is a spin loop; nothing on machines without such a hint."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        if platform.machine() in ("x86_64", "AMD64"):
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause"
            )
            builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), generate


@njit(nogil=True, cache=True)
def _execute(job, a, tid, team):  # type: ignore[no-untyped-def]
    if job == LINEAR:
        linear(a, tid, team)
    elif job == RMS_NORM:
        rms_norm(a, tid, team)
    elif job == ATTENTION:
        attention(a, tid, team)
    elif job == ROPE_CACHE:
        rope_cache(a, tid, team)
    elif job == GATED:
        gated(a, tid, team)
    elif job == EMBEDDING:
        embedding(a, tid, team)
    elif job == SAMPLE:
        sample(a, tid, team)
    elif job == LOGPROBS:
        logprobs(a, tid, team)
    elif job == PACK:
        pack_panels(a, tid, team)
    elif job == FILL:
        fill_panels(a, tid, team)


@njit(nogil=True, cache=True)
def _share_and_wait(control, job, a, team):  # type: ignore[no-untyped-def]
    _execute(job, a, 0, team)
    spins = 0
    while atomic_load(control + 8 * _DONE) < team - 1:
        spins += 1
        if spins < _SPINS:
            _pause()
        else:
            _sched_yield()


@njit("void(int64, int64[::1])", nogil=True, cache=True)
def run_serial(job, a):  # type: ignore[no-untyped-def]
    _execute(job, a, 0, 1)


@njit("int64(int64, int64, int64[::1], int64)", nogil=True, cache=True)
def run_publish(control, job, a, team):  # type: ignore[no-untyped-def]
    """Hand the job to the team. 0: everything is done; else members are parked: wake them, then call run_finish."""
    words = carray(pointer_i64(control), (128,))
    words[_JOB] = job
    for i in range(a.shape[0]):
        words[_ARGUMENTS + i] = a[i]
    atomic_store(control + 8 * _DONE, 0)
    atomic_add(control + 8 * _EPOCH, 1)
    for member in range(1, team):
        if atomic_load(control + 8 * (_PARKED + member)) != 0:
            return 1
    _share_and_wait(control, job, a, team)
    return 0


@njit("void(int64, int64, int64[::1], int64)", nogil=True, cache=True)
def run_finish(control, job, a, team):  # type: ignore[no-untyped-def]
    _share_and_wait(control, job, a, team)


@njit("int64(int64, int64, int64, int64)", nogil=True, cache=True)
def member_loop(control, tid, team, epoch):  # type: ignore[no-untyped-def]
    """Take jobs until none has come for a while (returns the last epoch, parked) or the team is stopped (returns -1)."""
    words = carray(pointer_i64(control), (128,))
    atomic_store(control + 8 * (_PARKED + tid), 0)  # a wake-up may have been meant for an earlier parking
    while True:
        spins = 0
        while atomic_load(control + 8 * _EPOCH) == epoch:
            spins += 1
            if spins < _SPINS:
                _pause()
            elif spins < _SPINS + _YIELDS:
                _sched_yield()
            else:
                atomic_add(
                    control + 8 * (_PARKED + tid), 1
                )  # a full barrier, so that the next look is honest
                if atomic_add(control + 8 * _EPOCH, 0) == epoch:
                    return epoch
                atomic_store(control + 8 * (_PARKED + tid), 0)
                break
        epoch = atomic_load(control + 8 * _EPOCH)
        if words[_STOP] != 0:
            return -1
        _execute(words[_JOB], words[_ARGUMENTS : _ARGUMENTS + MAX_ARGUMENTS], tid, team)
        atomic_add(control + 8 * _DONE, 1)


class ThreadTeam:
    """Owned by the engine thread: only that thread may call `run`. Members are daemon threads and end with `stop`."""

    def __init__(self, num_threads: int) -> None:
        self.num_threads = max(1, num_threads)
        self._control = np.zeros(128, np.int64)
        self._address = self._control.ctypes.data
        self._wake = [threading.Semaphore(0) for _ in range(self.num_threads)]
        self._members = [
            threading.Thread(target=self._serve, args=(tid,), daemon=True, name=f"kernel-{tid}")
            for tid in range(1, self.num_threads)
        ]
        for member in self._members:
            member.start()

    def run(self, job: int, arguments: Any, parallel: bool) -> None:
        """Run one kernel to its end. arguments: int64 [n]; parallel False keeps small jobs on this thread."""
        if not parallel or self.num_threads == 1:
            run_serial(job, arguments)
        elif run_publish(self._address, job, arguments, self.num_threads):
            self._wake_parked()
            run_finish(self._address, job, arguments, self.num_threads)

    def stop(self) -> None:
        """End all members; the team cannot be used afterwards."""
        self._control[_STOP] = 1
        self._control[_EPOCH] += 1
        self._wake_parked()
        for member in self._members:
            member.join()

    def _wake_parked(self) -> None:
        for tid in range(1, self.num_threads):
            if self._control[_PARKED + tid]:
                self._control[_PARKED + tid] = 0
                self._wake[tid].release()

    def _serve(self, tid: int) -> None:
        epoch = 0
        while True:
            epoch = member_loop(self._address, tid, self.num_threads, epoch)
            if epoch < 0:
                return
            self._wake[tid].acquire()
