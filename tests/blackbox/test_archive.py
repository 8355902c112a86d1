"""vsrv as one file, black box: what lies in it, how it starts, and what may happen to it and to its cache while it serves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest
from started import Server, start

ROOT = Path(__file__).resolve().parent.parent.parent


def run(
    pyz: Path, *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(pyz), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )


def children(server: Server, name: str) -> list[int]:
    """Process ids of the server's children with the internal command `name`."""
    assert server.process is not None
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1]) if words else 0
        except OSError:
            continue  # it ended just now
        if parent == server.process.pid and name.encode() in words:
            found.append(int(folder.name))
    return found


def complete(server: Server) -> str:
    body = {"prompt": "hello", "max_tokens": 8, "temperature": 0}
    status, answer = server.post("/v1/completions", body)
    assert status == 200, answer
    return str(answer["choices"][0]["text"])  # type: ignore[index]


# ---------------------------------------------------------------- what lies in it


def test_builds_from_different_surroundings_are_byte_identical(tmp_path: Path) -> None:
    digests = []
    for number, (mask, seed, when) in enumerate(((0o022, "1", 1_000_000_000), (0o077, "2", 1_500_000_000))):
        tree = tmp_path / ("short" if number else "another/and-longer-folder")
        tree.mkdir(parents=True)
        names = ("build_zipapp.py", "pyproject.toml", "LICENSE")
        for path in [ROOT / name for name in names] + list((ROOT / "vsrv").rglob("*")):
            target = tree / path.relative_to(ROOT)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            elif "__pycache__" not in path.parts:
                target.parent.mkdir(exist_ok=True)
                shutil.copy(path, target)
                target.chmod(0o600 if number else 0o664)
                os.utime(target, (when, when))
        done = subprocess.run(
            [sys.executable, str(tree / "build_zipapp.py")],
            env={**os.environ, "PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": "1700000001"},
            cwd=tmp_path if number else "/",
            umask=mask,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        archive = tree / "dist" / "vsrv-0.1.0.pyz"
        assert (tree / "dist" / "vsrv.pyz").resolve() == archive and os.access(archive, os.X_OK)
        digests.append(hashlib.sha256(archive.read_bytes()).hexdigest())
        sums = dict(
            line.split("  ")[::-1] for line in (tree / "dist" / "SHA256SUMS").read_text().splitlines()
        )
        assert sums["vsrv-0.1.0.pyz"] == digests[-1]
    assert digests[0] == digests[1]


def test_tensors_lie_aligned_and_uncompressed(pyz: Path) -> None:
    """As zip's specification (APPNOTE 4.3.7) and safetensors' own place them: local header, name, extra field, length, JSON, data."""
    with zipfile.ZipFile(pyz) as zipped:
        member = zipped.getinfo("vsrv/demo/model.safetensors")
        assert zipped.testzip() is None
    assert member.compress_type == zipfile.ZIP_STORED
    data = pyz.read_bytes()
    name, extra = struct.unpack_from("<HH", data, member.header_offset + 26)
    begin = member.header_offset + 30 + name + extra
    (header,) = struct.unpack_from("<Q", data, begin)
    assert (begin + 8 + header) % 4096 == 0
    assert data[begin : begin + member.file_size] == (ROOT / "vsrv/demo/model.safetensors").read_bytes()


def test_bytecode_is_unchecked_and_names_no_real_file(pyz: Path) -> None:
    """PEP 552: flags 0b01. Kernels have none, since numba reads their sources."""
    with zipfile.ZipFile(pyz) as zipped:
        names = set(zipped.namelist())
        codes = [name for name in names if name.endswith(".pyc")]
        for name in codes:
            data = zipped.read(name)
            assert data[4:8] == b"\x01\0\0\0" and f"/vsrv.pyz/{name[:-1]}".encode() in data, name
            assert str(ROOT).encode() not in data, name
    sources = {name for name in names if name.endswith(".py") and name != "__main__.py"}
    assert {name[:-1] for name in codes} == {n for n in sources if not n.startswith("vsrv/kernels/")}


def test_what_is_not_vsrvs_own_comes_with_its_licence_and_is_listed(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as zipped:
        names = zipped.namelist()
        parts = json.loads(zipped.read("vsrv/sbom.cdx.json"))
    assert pyz.with_suffix(".cdx.json").read_text() == json.dumps(parts, indent=1, sort_keys=True)
    inside = {part["name"] for part in parts["components"] if part["scope"] == "required"}
    packages = {name.partition("/")[0] for name in names if "/" in name}
    assert {name for name in packages if not name.endswith(".dist-info")} - {"vsrv"} == inside
    for name in inside:
        assert any(n.startswith(f"{name}-") and "/licenses/" in n for n in names), name
    assert "LICENSE" in names


def test_the_wheel_has_the_same_files(pyz: Path) -> None:
    """Without building one: pyproject's patterns take every file of the package that the archive takes."""
    import tomllib

    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    data = {
        path.relative_to(ROOT).as_posix()
        for package, globs in patterns.items()
        for pattern in globs
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    with zipfile.ZipFile(pyz) as zipped:
        names = {n for n in zipped.namelist() if n.startswith("vsrv/") and not n.endswith((".py", ".pyc"))}
    assert names - data == {"vsrv/build.json", "vsrv/sbom.cdx.json"} and data <= names
    modules = {p.parent for p in (ROOT / "vsrv").rglob("*.py")}
    assert all((folder / "__init__.py").is_file() for folder in modules)


# ---------------------------------------------------------------- how it starts


def test_help_loads_nothing_heavy(pyz: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", str(pyz), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert done.returncode == 0 and "serve" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = {"asyncio", "ssl", "email", "zipfile", "subprocess", "h11", "orjson", "numpy", "torch", "numba"}
    assert "vsrv.cli" in loaded and not loaded & heavy


def test_it_runs_from_anywhere_and_isolated(pyz: Path, tmp_path: Path) -> None:
    """A folder of the name of a module in the current folder is not taken for it."""
    (tmp_path / "vsrv").mkdir()
    (tmp_path / "vsrv" / "__init__.py").write_text("raise SystemExit('the wrong vsrv')")
    shutil.copy(pyz, tmp_path / "no-suffix")
    for flags in ([], ["-I"]):
        command = [sys.executable, *flags, "no-suffix", "version"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=tmp_path)
        assert done.returncode == 0 and "0.1.0" in done.stdout, done.stderr


def test_check_finds_the_demo_models_weights(pyz: Path) -> None:
    """They lie in the archive only."""
    data = (ROOT / "vsrv/demo/model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    done = run(pyz, "check", "--port", "0")
    tensors = len(header.keys() - {"__metadata__"})
    assert done.returncode == 0 and f"{tensors} tensors, {len(data) / 2**20:.1f} MiB" in done.stdout, (
        done.stdout
    )


# ---------------------------------------------------------------- what may happen while it serves


def test_replacing_the_archive_under_load_harms_nothing(pyz: Path, tmp_path: Path, server: Server) -> None:
    """Overwritten in place as scp does, its link moved, and away: later imports and a new engine come from the copy in memory."""
    version = tmp_path / "vsrv-0.1.0.pyz"
    shutil.copy(pyz, version)
    link = tmp_path / "vsrv.pyz"
    link.symlink_to(version.name)
    expected = complete(server)
    served = start(program=(sys.executable, f"./{os.path.relpath(link)}"))
    answers: list[str] = []
    enough = threading.Event()

    def load() -> None:
        while not enough.is_set():
            answers.append(complete(served))

    try:
        served.wait_ready()
        thread = threading.Thread(target=load)
        thread.start()
        try:
            with open(version, "r+b") as file:
                file.write(b"another version" * 1000)
                file.truncate()
            os.replace(version, tmp_path / "away")
            (tmp_path / "new").symlink_to("nowhere")
            os.replace(tmp_path / "new", link)
            (tmp_path / "away").unlink()
            # a chat renders its template in the prepare child, what is first asked for now is imported now
            for _ in range(3):
                status, answer = served.post(
                    "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}
                )
                assert status == 200, answer
            assert served.get("/metrics")[0] == 200 and served.get("/v1/models")[0] == 200
        finally:
            enough.set()
            thread.join(30)
        (engine,) = children(served, "_engine")
        os.kill(engine, signal.SIGKILL)
        end = time.monotonic() + 60
        while children(served, "_engine") in ([], [engine]) and time.monotonic() < end:
            time.sleep(0.05)
        served.wait_ready()
        assert complete(served) == expected
    finally:
        assert served.stop() == 0
    assert answers and set(answers) == {expected}
    errors = [line for line in served.log().splitlines() if " error " in line or "Traceback" in line]
    assert len(errors) == 1 and "restarting the engine" in errors[0], served.log()


WITHOUT_MEMORY_FILES = """
import os, sys
def refuse(*arguments):
    raise OSError("not here")
os.memfd_create = refuse
sys.path.insert(0, sys.argv[1])
from vsrv import archive, boot
archive.pin()
os.unlink(sys.argv[1])
os.symlink("/dev/null", sys.argv[1])
import vsrv.messages
print(archive.path(), boot.child_command("_engine")[-2:], archive.inherited(7))
"""


def test_where_there_are_no_memory_files_the_link_may_move(pyz: Path, tmp_path: Path) -> None:
    link = tmp_path / "vsrv.pyz"
    link.symlink_to(pyz)
    command = [sys.executable, "-I", "-c", WITHOUT_MEMORY_FILES, str(link)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout == f"{pyz} {[str(pyz), '_engine']} [7]\n", done.stderr


def test_tls_keys_stream_and_drain_with_a_read_only_home(pyz: Path, tmp_path: Path, warm_cache: Path) -> None:
    made = run(pyz, "cert", "--out", str(tmp_path / "certs"))
    assert made.returncode == 0, made.stderr
    files = (
        "--ssl-certfile",
        str(tmp_path / "certs/server.pem"),
        "--ssl-keyfile",
        str(tmp_path / "certs/server.key"),
    )
    # nobody can write below /proc, not even root: the next place is the temporary folder
    shutil.copytree(warm_cache, tmp_path / f"vsrv-{os.geteuid()}")
    surroundings = {"HOME": "/proc", "XDG_CACHE_HOME": "", "XDG_RUNTIME_DIR": "", "TMPDIR": str(tmp_path)}
    surroundings["NUMBA_CACHE_DIR"] = str(tmp_path / "unchecked")
    server = start("--api-key", "secret", *files, program=(sys.executable, str(pyz)), env=surroundings)
    context = ssl.create_default_context(cafile=str(tmp_path / "certs/ca.pem"))
    try:
        server.wait_ready(context=context)
        # 127.0.0.1 may not be in a certificate
        assert f"try: curl {server.url.replace('127.0.0.1', 'localhost')}/v1/" in server.log()
        assert server.request("GET", "/v1/models", None, context=context)[0] == 401
        body = json.dumps({"prompt": "hello", "max_tokens": 400, "ignore_eos": True, "stream": True}).encode()
        headers = {"Authorization": "Bearer secret", "Content-Type": "application/json"}
        request = urllib.request.Request(server.url + "/v1/completions", body, headers)
        with urllib.request.urlopen(request, context=context, timeout=60) as response:
            assert response.readline().startswith(b"data: ")
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)
            events = [line for line in response.read().decode().splitlines() if line.startswith("data: ")]
        assert (
            events[-1] == "data: [DONE]"
            and json.loads(events[-2][6:])["choices"][0]["finish_reason"] == "length"
        )
        assert server.process.wait(20) == 0
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()
    assert not (tmp_path / "unchecked").exists()
    assert list(tmp_path.glob("vsrv-*/demo-*/demo/config.json")) and not list(
        tmp_path.rglob("model.safetensors")
    )


UNPACK = """
import sys
sys.path.insert(0, sys.argv[1])
from vsrv import archive, boot
archive.pin()
print(boot.private_copy("kernels/cpu"), boot.unpack_package_folder("demo"))
"""


def unpackers(pyz: Path, cache: Path, count: int) -> list[subprocess.Popen[str]]:
    command = [sys.executable, "-I", "-c", UNPACK, str(pyz)]
    env = {**os.environ, "VSRV_CACHE_DIR": str(cache)}
    return [
        subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(count)
    ]


def test_several_starts_at_once_fill_one_cache(pyz: Path, tmp_path: Path) -> None:
    processes = unpackers(pyz, tmp_path / "cache", 3)
    said = [process.communicate(timeout=60) for process in processes]
    assert {process.returncode for process in processes} == {0}, said
    assert len({out for out, _ in said}) == 1
    folders = list((tmp_path / "cache").iterdir())
    assert len(folders) == 2 and not [f for f in folders if f.name.startswith(".")]
    with zipfile.ZipFile(pyz) as zipped:
        for name in zipped.namelist():
            if name.startswith("vsrv/kernels/cpu/"):
                (copy,) = (tmp_path / "cache").glob(
                    f"kernels-cpu-*/cpu/{name.removeprefix('vsrv/kernels/cpu/')}"
                )
                assert copy.read_bytes() == zipped.read(name)


def test_a_start_that_was_killed_leaves_nothing_half(pyz: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for delay in (0.02, 0.04, 0.06, 0.08, 0.1, 0.12):
        (process,) = unpackers(pyz, cache, 1)
        time.sleep(delay)
        process.kill()
        process.communicate()
    (process,) = unpackers(pyz, cache, 1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    with zipfile.ZipFile(pyz) as zipped:
        count = sum(n.startswith("vsrv/kernels/cpu/") and n.endswith(".py") for n in zipped.namelist())
    assert len(list(Path(out.split()[0]).rglob("*.py"))) == count


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_cache_that_others_can_change_is_refused(pyz: Path, tmp_path: Path) -> None:
    """Compiled kernels are code, so are the sources that they come from: the whole folder or one of its parts."""
    cache = tmp_path / "cache"
    (process,) = unpackers(pyz, cache, 1)
    process.communicate(timeout=60)
    (part,) = cache.glob("kernels-cpu-*")
    os.chown(part, 65534, 65534)
    (process,) = unpackers(pyz, cache, 1)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0 and not out
    assert f"ConfigError: cache folder {part} belongs to user id 65534" in err
    os.chown(cache, 65534, 65534)
    done = run(pyz, "serve", "--port", "0", env={"VSRV_CACHE_DIR": str(cache)})
    assert done.returncode == 78, done.stderr
    assert f"cache folder {cache} belongs to user id 65534" in done.stderr and "Traceback" not in done.stderr
