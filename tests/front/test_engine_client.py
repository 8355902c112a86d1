"""EngineClient against a scripted engine process: streams, health, aborts, and every way in which the process can end."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import textwrap
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vsrv.config import EngineConfig
from vsrv.engine_client import EngineClient, TokenStream
from vsrv.errors import EngineError
from vsrv.messages import Abort, Beat, SamplingParams
from vsrv.supervisor import RestartPolicy, Supervisor

PRELUDE = f"""
import os, signal, socket, sys, time
from array import array
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from vsrv.messages import *
from vsrv.frames import *
sock = socket.socket(fileno=int(sys.argv[-1]))
reader, waiting = FrameReader(), []
STOP, READY = FinishReason.STOP, Ready(150, 512, 4, 64, 32, 10, 20, "float32", "cpu", "Scripted")
def take(kind):
    while not (found := [i for i, frame in enumerate(waiting) if isinstance(frame, kind)]):
        data = sock.recv(1 << 16) or sys.exit(0)
        waiting.extend(reader.feed(data))
    return waiting.pop(found[0])
def send(*frames): sock.sendall(b"".join(map(encode, frames)))
def output(seq_id, *ids, end=FinishReason.NONE): return TokenOutput(seq_id, array("I", ids), end)
hello = take(Hello)
"""
Play = Callable[..., list[str]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Run a scenario with a client whose engine is `script`; the lines that this wrote to stderr."""
    program = tmp_path / "engine.py"
    monkeypatch.setattr("vsrv.engine_client.child_command", lambda name: [sys.executable, str(program), name])

    def played(script: str, scenario: Callable[[EngineClient], Any], ready: bool = True) -> list[str]:
        around = "send(READY)\n{}\ntake(Stop)" if ready else "{}"
        program.write_text(PRELUDE + around.format(textwrap.dedent(script)))
        lines: list[str] = []

        async def main() -> None:
            client = EngineClient(30.0, lines.append)
            await client.stop()  # nothing to stop yet
            await client.start(EngineConfig("some/model"))
            try:
                await until(lambda: client.became_ready.is_set() or not ready)
                await asyncio.wait_for(scenario(client), 60)
            finally:
                await client.stop()

        asyncio.run(main())
        gc.collect()  # a transport that was left open speaks up here
        return lines

    return played


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def ids_of(stream: TokenStream) -> list[int]:
    return [token async for item in stream for token in item.token_ids]


def submit(client: EngineClient, *ids: int) -> TokenStream:
    return client.submit(array("I", ids), SamplingParams(max_tokens=4), priority=7)


def test_from_loading_to_ready_to_its_end(play: Play) -> None:
    async def scenario(client: EngineClient) -> None:
        await until(lambda: client.loading.phase == "weights")
        assert (client.health().state, client.health().fraction) == ("loading", 0.5)
        assert client.loading.detail == "some/model", "the configuration did not arrive"
        with pytest.raises(EngineError) as refused:
            submit(client, 1)
        assert refused.value.code == "model_loading" and refused.value.retry_after_s
        client._send(Abort(0))  # go on
        await client.became_ready.wait()
        assert client.health().state == "ready" and client.ready and client.ready.vocab_size == 150
        client.draining = True
        assert client.health().state == "draining"
        await client.stop()
        assert client.health().state == "dead"
        with pytest.raises(EngineError) as refused:
            submit(client, 1)
        assert refused.value.code == "engine_dead"

    script = """
        send(Loading("weights", 0.5, hello.config["model"]))
        take(Abort), send(READY), take(Stop)
    """
    assert play(script, scenario, False) == [], "an engine that was stopped is no news"


def test_streams_are_demultiplexed_in_any_cut(play: Play) -> None:
    async def scenario(client: EngineClient) -> None:
        a, b, c, bad = [submit(client, n, n + 1) for n in (10, 20, 30, 99)]
        assert client.num_streams == 4
        with pytest.raises(EngineError, match="no such token"):
            await ids_of(bad)
        assert await asyncio.gather(*map(ids_of, (a, b, c))) == [[10, 11, 1], [20, 21, 2, 7], [30, 31]]
        assert client.num_streams == 0 and a.finished and client.health().state == "ready"

    script = """
        a, b, c, bad = [take(Generate) for _ in range(4)]
        frames = [Step(tuple(output(g.seq_id, *g.prompt_token_ids[:1]) for g in (c, a, b))),
                  Failed(bad.seq_id, "invalid_token_id", "no such token"),
                  Step(tuple(output(g.seq_id, *g.prompt_token_ids[1:]) for g in (b, c, a))),
                  Step((output(b.seq_id, 2, b.priority, end=STOP), output(c.seq_id, end=STOP),
                        output(a.seq_id, 1, end=FinishReason.LENGTH)))]
        for byte in b"".join(map(encode, frames)):
            sock.send(bytes([byte]))
    """
    play(script, scenario)


def test_late_frames_of_an_aborted_sequence_reach_nobody(play: Play) -> None:
    async def scenario(client: EngineClient) -> None:
        gone, kept = submit(client, 1), submit(client, 2)
        assert list((await anext(gone)).token_ids) == [5]
        gone.abort()
        gone.abort()
        assert client.num_streams == 1 and await ids_of(kept) == [6, 9]
        kept.abort()  # after its end: nothing is sent
        assert await ids_of(submit(client, 3)) == [3, 1], "the second token counts Abort frames"
        assert not gone.finished, "a frame for an aborted sequence was delivered"

    script = """
        a, b = take(Generate), take(Generate)
        send(Step((output(a.seq_id, 5),)))
        assert take(Abort).seq_id == a.seq_id
        send(Step((output(a.seq_id, 77), output(b.seq_id, 6))), Failed(a.seq_id, "late", "late"))
        send(Step((output(a.seq_id, end=FinishReason.ABORT), output(b.seq_id, 9, end=STOP))))
        c, aborts = take(Generate), 1 + sum(isinstance(frame, Abort) for frame in waiting)
        send(Step((output(c.seq_id, c.seq_id, aborts, end=STOP),)))
    """
    play(script, scenario)


def test_a_stall_is_requests_without_steps(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("vsrv.engine_client.time", clock)

    async def scenario(client: EngineClient) -> None:
        async def beaten(step: int, waiting: int) -> str:
            """State at the next Beat, which is sent when a Generate comes."""
            submit(client, 2).abort()
            await until(lambda: client.beat == Beat(step, 1, waiting, 0.5, {"x": 1.0}))
            return client.health().state

        clock.now += 1000
        stream = submit(client, 1)
        assert client.health().state == "ready", "an idle engine makes no steps"
        assert await beaten(5, 1) == "ready"
        clock.now += 31
        assert client.health().state == "stalled" and "31 s" in client.health().reason
        assert await beaten(5, 2) == "stalled", "a heart beats without a step"
        assert await beaten(6, 2) == "ready"
        clock.now += 31
        stream.abort()
        assert client.health().state == "stalled" and "no sign of life" in client.health().reason
        assert await beaten(6, 3) == "ready", "an idle engine that beats is well"

    script = """
        for step, count in ((0, 0), (5, 1), (5, 2), (6, 2), (6, 3)):
            take(Generate), send(Beat(step, 1, count, 0.5, {"x": 1.0}))
    """
    play(script, scenario)


@pytest.mark.parametrize("death", ["exit status 3", "signal 9"])
def test_an_engine_that_dies_fails_every_stream(play: Play, death: str) -> None:
    async def scenario(client: EngineClient) -> None:
        for stream in [submit(client, 1), submit(client, 2)]:
            assert list((await anext(stream)).token_ids) == [stream.seq_id]  # what came before is not lost
            with pytest.raises(EngineError) as failed:
                await anext(stream)
            assert failed.value.code == "engine_dead" and failed.value.retry_after_s
        assert client.num_streams == 0

    script = f"""
        a, b = take(Generate), take(Generate)
        send(Step((output(a.seq_id, a.seq_id), output(b.seq_id, b.seq_id))))
        os.write(2, b"last words")
        os._exit(3) if {death!r} == "exit status 3" else os.kill(os.getpid(), signal.SIGKILL)
    """
    assert play(script, scenario) == ["last words", f"the engine process ended with {death}"]


RESTARTABLE = """
    while True:
        frame = take(Generate)
        if frame.prompt_token_ids[0] == 1: os._exit(3)
        if frame.prompt_token_ids[0] == 2: time.sleep(1000)
        send(Step((output(frame.seq_id, os.getpid() & 0xffff, end=STOP),)))
"""


async def supervised(
    client: EngineClient, policy: RestartPolicy
) -> tuple[Supervisor, asyncio.Task[str], list[str]]:
    logged: list[str] = []
    supervisor = Supervisor(
        client, EngineConfig("some/model"), policy, lambda level, text: logged.append(text)
    )
    return supervisor, asyncio.get_running_loop().create_task(supervisor.run()), logged


def test_an_engine_that_ends_is_started_again_until_it_is_too_often(play: Play) -> None:
    async def scenario(client: EngineClient) -> None:
        policy = RestartPolicy(2, first_pause_s=0.1, poll_s=0.05)
        supervisor, watching, logged = await supervised(client, policy)
        (first,) = await ids_of(submit(client, 3))
        last_id = 0
        for count in (1, 2):
            dying = submit(client, 1)
            with pytest.raises(EngineError) as failed:
                await ids_of(dying)
            assert failed.value.code == "engine_dead" and failed.value.retry_after_s
            await until(lambda: client.restarting)
            assert client.health().state == "restarting" and f"{count} of at most 2" in client.health().reason
            with pytest.raises(EngineError) as refused:
                submit(client, 3)
            assert refused.value.code == "engine_restarting" and refused.value.retry_after_s
            await until(lambda: client.health().state == "ready")
            stream = submit(client, 3)
            assert stream.seq_id > last_id, "an id was used again"
            last_id = stream.seq_id
            (second,) = await ids_of(stream)
            assert second != first, "the same process"
            assert supervisor.num_restarts == count
        with pytest.raises(EngineError):
            await ids_of(submit(client, 1))
        assert "after 2 restarts" in await asyncio.wait_for(watching, 5)
        assert client.health().state == "dead" and len(logged) == 4

    lines = play(RESTARTABLE, scenario)
    assert lines == ["the engine process ended with exit status 3"] * 3


def test_a_stalled_engine_shows_its_stacks_and_is_replaced(play: Play) -> None:
    async def scenario(client: EngineClient) -> None:
        client._stall_timeout_s = 0.3
        supervisor, watching, logged = await supervised(client, RestartPolicy(1, 600, 0.05, 0.05))
        told: list[str] = []
        supervisor.on_stall, supervisor.on_restart = (
            lambda: told.append("stall"),
            lambda: told.append("restart"),
        )
        stuck = submit(client, 2)
        with pytest.raises(EngineError):
            await ids_of(stuck)
        await until(lambda: client.health().state == "ready")
        assert await ids_of(submit(client, 3)) and supervisor.num_stalls == supervisor.num_restarts == 1
        assert "no engine step" in logged[0] and "stacks" in logged[0] and told == ["stall", "restart"]
        watching.cancel()

    prelude = "import faulthandler; faulthandler.register(signal.SIGUSR2)"
    lines = play(f"\n    {prelude}" + RESTARTABLE, scenario)
    assert any("most recent call first" in line for line in lines), lines
    assert any("engine.py" in line and "in <module>" in line for line in lines), lines


def test_a_load_that_makes_no_progress_is_ended_with_its_stacks(play: Play) -> None:
    async def scenario(client: EngineClient) -> None:
        logged: list[str] = []
        policy = RestartPolicy(1, poll_s=0.05, load_timeout_s=0.5)
        supervisor = Supervisor(client, EngineConfig("m"), policy, lambda level, text: logged.append(text))
        assert not await asyncio.wait_for(supervisor.loaded(), 20)
        assert client.ended.is_set() and supervisor.num_stalls == 1
        assert len(logged) == 1 and "no progress for 0.5 s while loading (weights;" in logged[0]

    script = """
    import faulthandler; faulthandler.register(signal.SIGUSR2)
    for tenth in range(10): send(Loading("weights", tenth / 10)); time.sleep(0.1)  # slow, but it goes on
    time.sleep(1000)
    """
    lines = play(script, scenario, ready=False)
    assert any("engine.py" in line and "in <module>" in line for line in lines), lines


def test_a_restart_that_gets_no_process_is_tried_again(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(client: EngineClient) -> None:
        _, watching, logged = await supervised(client, RestartPolicy(2, first_pause_s=0.05, poll_s=0.05))
        spawn, calls = asyncio.create_subprocess_exec, [0]

        async def scarce(*arguments: Any, **more: Any) -> Any:
            calls[0] += 1
            if calls[0] == 1:
                raise BlockingIOError(11, "Resource temporarily unavailable")
            return await spawn(*arguments, **more)

        monkeypatch.setattr("asyncio.create_subprocess_exec", scarce)
        with pytest.raises(EngineError):
            await ids_of(submit(client, 1))
        await asyncio.wait_for(until(lambda: client.health().state == "ready"), 6)
        assert calls == [2] and any("temporarily unavailable" in text for text in logged)
        assert await ids_of(submit(client, 3))
        watching.cancel()

    play(RESTARTABLE, scenario)


def test_a_grandchild_that_holds_stderr_open_does_not_hold_the_restart(play: Play) -> None:
    async def scenario(client: EngineClient) -> None:
        _, watching, _ = await supervised(client, RestartPolicy(1, first_pause_s=0.05, poll_s=0.05))
        with pytest.raises(EngineError):
            await ids_of(submit(client, 1))
        await asyncio.wait_for(until(lambda: client.health().state == "ready"), 6)
        assert await ids_of(submit(client, 3))
        watching.cancel()

    play("\n    import subprocess; subprocess.Popen(['sleep', '8'])" + RESTARTABLE, scenario)


def test_a_pause_of_the_front_is_no_stall_of_the_engine(play: Play) -> None:
    async def scenario(client: EngineClient) -> None:
        client._stall_timeout_s = 0.5
        supervisor, watching, _ = await supervised(client, RestartPolicy(1, poll_s=0.05))
        stream = submit(client, 3)
        client._last_frame = client._last_progress = 0.0  # as after SIGSTOP and SIGCONT of this process
        time.sleep(1.6)
        assert await ids_of(stream)
        await asyncio.sleep(0.2)
        assert supervisor.num_stalls == 0
        watching.cancel()

    play(RESTARTABLE, scenario)


@pytest.mark.parametrize("turns", range(0, 12, 2))
def test_a_start_that_is_cancelled_anywhere_leaves_nothing(
    turns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "engine.py"
    program.write_text(PRELUDE + "take(Stop)")
    monkeypatch.setattr("vsrv.engine_client.child_command", lambda name: [sys.executable, str(program), name])

    async def main() -> None:
        client = EngineClient(30.0, lambda line: None)
        starting = asyncio.create_task(client.start(EngineConfig("some/model")))
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await client.stop()
        assert client._process is None or client._process.returncode is not None

    asyncio.run(main())
    gc.collect()


MALFORMED = {
    "another protocol version": b"\x02\0\0\0\x63\x06",
    "longer than any frame": b"\xff\xff\xff\xff\x01\x06",
    "a Step that promises five outputs": b"\x06\0\0\0\x01\x06\x05\0\0\0",
    "a Step with a byte too many": b"\x07\0\0\0\x01\x06\0\0\0\0!",
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_frame_ends_the_connection(play: Play, sent: bytes) -> None:
    async def scenario(client: EngineClient) -> None:
        with pytest.raises(EngineError) as failed:
            await ids_of(submit(client, 1))
        assert failed.value.code == "engine_dead" and client.health().state == "dead"

    assert "malformed frame" in play(f"take(Generate)\nsock.sendall({sent!r})", scenario)[0]


def test_a_configuration_error_is_told_once(play: Play) -> None:
    async def scenario(client: EngineClient) -> None:
        await client.ended.wait()
        assert client.failure == "--dtype int3: no"

    assert play('send(Failed(0, "config", "--dtype int3: no"))\nsys.exit(78)', scenario, False) == []


def test_stop_kills_an_engine_that_does_not_listen(play: Play) -> None:
    async def scenario(client: EngineClient) -> None:
        await until(lambda: client.loading.phase == "deaf")
        await client.stop(grace_s=0.2)
        assert client.ended.is_set()
        with pytest.raises(ProcessLookupError):
            os.kill(int(client.loading.detail), 0)

    assert play('send(Loading("deaf", 0.0, str(os.getpid())))\ntime.sleep(1000)', scenario, False) == []


def test_whatever_the_engine_writes_to_stderr_arrives(play: Play) -> None:
    script = r"""
        os.write(2, b"first\r\n\nnot \xff UTF-8\n")
        sys.stderr.write("long" * 100_000 + "\nafter it\nno end")
        sys.stderr.flush()
    """
    lines = play(script, lambda client: client.became_ready.wait())
    assert lines[:3] == ["first", "", "not \ufffd UTF-8"] and lines[-2:] == ["after it", "no end"]
    assert "".join(lines[3:-2]) == "long" * 100_000
