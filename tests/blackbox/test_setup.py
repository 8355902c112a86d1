"""`vsrv setup`, black box from the archive: a private environment out of a folder of wheels, and the starts that go over into it.

The wheels are stand-ins of a few bytes with the names that vsrv asks for, so that pip takes seconds and needs no network.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
STAND_INS = {
    "torch": "2.13.0+cpu",
    "numba": "0.68.1",
    "numpy": "2.4.6",
    "orjson": "3.13.0",
    "cryptography": "50.0.2",
    "tokenizers": "0.23.3",
    "safetensors": "0.8.0",
    "jinja2": "3.1.6",
    "llguidance": "1.9.1",
}
SPEAKS = "import sys\nprint('went over to', sys.prefix, sys.flags.isolated)\nraise SystemExit(7)\n"


def make_wheel(folder: Path, name: str, version: str) -> None:
    """The smallest wheel that pip takes (PEP 427)."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": SPEAKS,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text)}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


class Host:
    """A machine's Python without any package, a folder of wheels, their lock, and a cache folder."""

    def __init__(self, pyz: Path, folder: Path) -> None:
        self.pyz, self.cache, self.wheels, self.lock = (
            pyz,
            folder / "cache",
            folder / "wheels",
            folder / "lock.txt",
        )
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "bare")], check=True)
        self.python = folder / "bare" / "bin" / "python"
        self.wheels.mkdir()
        for name, version in STAND_INS.items():
            make_wheel(self.wheels, name, version)
        command = [sys.executable, str(ROOT / "build_zipapp.py"), "lock", "--wheels", str(self.wheels)]
        subprocess.run([*command, "--output", str(self.lock)], check=True, stdout=subprocess.DEVNULL)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.python), str(self.pyz), *arguments],
            env={**os.environ, "VSRV_CACHE_DIR": str(self.cache), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str]:
        process = self.start(*arguments, **variables)
        said, _ = process.communicate(timeout=500)
        return process.returncode, said

    def setup(self, *more: str) -> tuple[str, ...]:
        return ("setup", "--wheels", str(self.wheels), "--lock", str(self.lock), *more)

    def environments(self) -> list[Path]:
        return sorted(p for p in (self.cache / "environments").iterdir() if p.is_dir())


@pytest.fixture(scope="module")
def host(pyz: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Set up the hard way: one setup is killed in the middle, two others start at once."""
    host = Host(pyz, tmp_path_factory.mktemp("host"))
    killed = host.start(*host.setup())
    assert killed.stdout is not None
    assert "each checked against its SHA-256" in killed.stdout.readline()
    time.sleep(0.3)
    killed.kill()
    killed.communicate()
    processes = [host.start(*host.setup()) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert sum("is there" in text for text in said) == 1, said
    assert sum("  installing them" in text for text in said) == 1, said
    yield host


def test_a_python_without_the_packages_says_what_is_missing_and_both_remedies(
    pyz: Path, tmp_path: Path
) -> None:
    host = Host(pyz, tmp_path)
    make_wheel(host.wheels, "cryptography", "38.0.4")
    old = next((tmp_path / "bare").glob("lib/python*/site-packages"))
    with zipfile.ZipFile(host.wheels / "cryptography-38.0.4-py3-none-any.whl") as wheel:
        wheel.extractall(old)
    for arguments in (("serve",), ("serve", "some/model", "--port", "9"), ("bench",), ("cert",)):
        status, said = host.run(*arguments)
        assert status == 78 and len(said.splitlines()) == 1, said
        for word in (
            "torch",
            "numba",
            "orjson",
            "cryptography >=44 (here is 38.0.4)",
            " setup ",
            "pip install 'torch>=",
        ):
            assert word in said
        assert "h11" not in said and "prometheus" not in said  # the archive brings them
    for arguments in (("--help",), ("serve", "--help"), ("version",), ("config",), ("setup", "--help")):
        assert host.run(*arguments)[0] == 0


def test_killed_and_twice_at_once_there_is_one_whole_environment(host: Host) -> None:
    (environment,) = host.environments()
    assert json.loads((environment / ".complete").read_text())["packages"] == len(STAND_INS)
    for folder in (environment, environment.parent, environment.parent.parent):
        assert folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 0o077
    writable = [p for p in environment.rglob("*") if not p.is_symlink() and p.stat().st_mode & 0o022]
    assert not writable


def test_starts_go_over_into_it_in_the_same_process(host: Host) -> None:
    (environment,) = host.environments()
    process = host.start("bench")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 7 and said == f"went over to {environment} 1\n"
    status, said = host.run(*host.setup("bench"))
    assert status == 7 and said.endswith(f"went over to {environment} 1\n")


def test_an_environment_whose_python_has_gone_is_told(host: Host) -> None:
    (environment,) = host.environments()
    python = environment / "bin" / "python"
    target = os.readlink(python)
    python.unlink()
    python.symlink_to("/nowhere/python3")
    status, said = host.run("bench")
    python.unlink()
    python.symlink_to(target)
    assert (
        status == 78 and "cannot be run" in said and "vsrv.pyz setup" in said and len(said.splitlines()) == 1
    )


def test_environments_are_listed_and_removed(host: Host) -> None:
    (environment,) = host.environments()
    other = environment.with_name("cpu-" + "0" * 32)
    other.mkdir()
    status, said = host.run("setup", "--list")
    assert status == 0
    lines = {line.split()[0]: line.split()[-1] for line in said.splitlines()}
    assert lines == {environment.name: "current", other.name: "incomplete"}
    assert host.run("setup", "--remove", "../../etc")[0] == 78
    assert host.run("setup", "--remove")[0] == 0
    assert host.environments() == [environment]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_an_environment_that_others_could_change_is_refused(host: Host) -> None:
    (environment,) = host.environments()
    for folder in (environment, environment.parent):
        os.chown(folder, 65534, 65534)
        status, said = host.run("bench")
        os.chown(folder, os.geteuid(), os.getegid())
        assert status == 78 and "belongs to user id 65534" in said and "went over" not in said


def test_what_is_no_lock_for_this_python_is_said_before_anything_is_made(host: Host, tmp_path: Path) -> None:
    status, said = host.run("setup", "--python", "/bin/sh")
    assert status == 78 and "--python /bin/sh" in said
    status, said = host.run("setup", "--lock", str(tmp_path / "none"))
    assert status == 78 and "none" in said
    assert len(host.environments()) == 1


def test_the_archives_own_locks_name_their_pythons_and_platform(host: Host, tmp_path: Path) -> None:
    for facts, told in (
        (
            ["3.15.0", "linux-x86_64", 3, 15],
            "the lock for --cpu is for Python 3.11, 3.12, 3.13, 3.14, not for 3.15",
        ),
        (["3.12.3", "linux-aarch64", 3, 12], "the lock for --cpu is for linux-x86_64, not for linux-aarch64"),
    ):
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\necho '{json.dumps(facts)}'\n")
        python.chmod(0o755)
        status, said = host.run("setup", "--cpu", "--python", str(python))
        assert status == 78 and told in said and "--lock FILE" in said, said
    assert len(host.environments()) == 1


def test_an_environment_for_services_is_readable_by_all_and_brings_the_archive(
    host: Host, tmp_path: Path
) -> None:
    folder = tmp_path / "opt" / "vsrv"
    program = folder / "bin" / "vsrv"
    before = os.umask(0o077)  # as careful people have it for root
    try:
        status, said = host.run(*host.setup("--to", str(folder)))
    finally:
        os.umask(before)
    assert status == 0 and f"run: {program} serve MODEL" in said, said
    for path in (folder.parent, folder, *folder.rglob("*")):
        mode = path.lstat().st_mode
        assert path.is_symlink() or (mode & 0o444 == 0o444 and not mode & 0o022), path
        assert not path.is_dir() or mode & 0o111 == 0o111, path
    if os.path.realpath(host.python).startswith(("/root/", "/home/")):
        assert "services cannot run it: name another by --python" in said
    assert (folder / "vsrv.pyz").read_bytes() == host.pyz.read_bytes()
    nowhere = {"PATH": "/usr/bin:/bin", "VSRV_CACHE_DIR": str(tmp_path / "other")}
    done = subprocess.run([program, "bench"], env=nowhere, capture_output=True, text=True)
    assert done.returncode == 7 and done.stdout == f"went over to {folder} 1\n", done

    (folder / "vsrv.pyz").write_bytes(b"an older one")
    status, said = host.run(*host.setup("--to", str(folder), "version"))
    assert status == 0 and "it gets this archive" in said and "vsrv 0.1.0" in said, said
    assert (folder / "vsrv.pyz").read_bytes() == host.pyz.read_bytes()

    lock = tmp_path / "lock.txt"
    lock.write_text("# another\n" + host.lock.read_text())
    (folder / "of-the-older-one").touch()
    wheels = ("setup", "--wheels", str(host.wheels))
    status, said = host.run(*wheels, "--lock", str(lock), "--to", str(folder), "version")
    assert status == 0 and "it has replaced an older environment" in said and "vsrv 0.1.0" in said, said
    assert not (folder / "of-the-older-one").exists()
    assert sorted(path.name for path in folder.parent.iterdir()) == [".vsrv.lock", "vsrv"]
    status, said = host.run(*wheels, "--lock", str(lock), "--to", str(tmp_path))
    assert status == 78 and "is there and no environment" in said, said
    assert host.run("setup", "--list", "--to", str(folder))[0] == 78
    assert len(host.environments()) == 1


def test_two_environments_for_services_in_one_place_do_not_disturb_each_other(
    host: Host, tmp_path: Path
) -> None:
    first = host.start(*host.setup("--to", str(tmp_path / "a")))
    assert first.stdout is not None
    assert "each checked against its SHA-256" in first.stdout.readline()
    second, said = host.run(*host.setup("--to", str(tmp_path / "b"), "version"))
    rest = first.communicate(timeout=120)[0]
    assert (first.returncode, second) == (0, 0), rest + said
    assert "another setup is running" in said and (tmp_path / "a" / "bin" / "vsrv").is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_what_another_user_could_change_is_not_gone_on_with(host: Host, tmp_path: Path) -> None:
    """Root brings up to date what somebody else has made, or pretends to have."""
    folder, victim = tmp_path / "vsrv", tmp_path / "victim"
    (folder / "bin").mkdir(parents=True)
    (folder / ".complete").write_text('{"name": "own-0"}')
    victim.write_text("as it was")
    (folder / ".vsrv.pyz.new").symlink_to(victim)
    for path in (folder, folder / "bin"):
        os.chown(path, 65534, 65534)
        status, said = host.run(*host.setup("--to", str(folder)))
        os.chown(path, 0, 0)
        assert status == 78 and "belongs to user id 65534" in said, said
    assert victim.read_text() == "as it was"
    (tmp_path / ".making-x").symlink_to(tmp_path / "nowhere")
    assert host.run(*host.setup("--to", str(folder)))[0] == 0
    assert victim.read_text() == "as it was" and (folder / "vsrv.pyz").is_file()


def test_two_indexes_are_asked(host: Host, tmp_path: Path) -> None:
    """Simple indexes (PEP 503) on loopback: torch is in one, all else in the other."""
    for wheel in host.wheels.glob("*.whl"):
        name = wheel.name.partition("-")[0]
        folder = tmp_path / ("further" if name == "torch" else "first") / name
        folder.mkdir(parents=True)
        shutil.copy(wheel, folder)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        lock = tmp_path / "lock.txt"
        lock.write_text("# of two indexes\n" + host.lock.read_text())
        url = f"http://127.0.0.1:{server.server_port}"
        command = ["setup", "--lock", str(lock), "--index", f"{url}/first/"]
        alone = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
        status, said = host.run(*command, **alone)
        assert status == 78 and "No matching distribution found for torch" in said, said
        status, said = host.run(*command, "--extra-index", f"{url}/further/", **alone)
        server.shutdown()
    assert status == 0, said
    made = said.partition("vsrv setup: made ")[2].partition(" in ")[0]
    assert host.run(*host.setup())[0] == 0  # the one that the other tests know is current again
    assert host.run("setup", "--remove", Path(made).name)[0] == 0
    status, said = host.run(*host.setup("--extra-index", url))
    assert status == 78 and "does not go with --wheels" in said


@pytest.mark.slow
def test_a_file_with_another_hash_is_refused(host: Host, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    shutil.copytree(host.wheels, wheels)
    with zipfile.ZipFile(wheels / "orjson-3.13.0-py3-none-any.whl", "a") as wheel:
        wheel.writestr("more.py", "")
    lock = tmp_path / "lock.txt"
    lock.write_text("# another text, another environment\n" + host.lock.read_text())
    status, said = host.run("setup", "--wheels", str(wheels), "--lock", str(lock))
    assert status == 78 and "DO NOT MATCH THE HASHES" in said and "nothing was changed" in said
    assert len(host.environments()) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_real_thing_serves(pyz: Path, tmp_path: Path, warm_cache: Path) -> None:
    """`vsrv setup --cpu` with the committed lock and pip's own sources, then the demo model, all in one command line."""
    from started import start

    host = Host(pyz, tmp_path)
    shutil.copytree(warm_cache, host.cache)
    status, said = host.run("setup", "--cpu", "version")
    assert status == 0 and "vsrv 0.1.0" in said, said
    server = start(program=(str(host.python), str(pyz)), env={"VSRV_CACHE_DIR": str(host.cache)})
    try:
        server.wait_ready()
        assert server.post("/v1/completions", {"prompt": "hello", "max_tokens": 4})[0] == 200
    finally:
        assert server.stop() == 0
        shutil.rmtree(host.cache)  # more than a gigabyte
