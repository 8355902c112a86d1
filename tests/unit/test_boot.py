"""The private cache folder and the commands of children: who may be trusted with compiled code."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vsrv import boot
from vsrv.errors import ConfigError


def test_the_explicit_cache_folder_is_made_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSRV_CACHE_DIR", str(tmp_path / "a" / "b"))
    assert boot.cache_dir() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_can_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(mode)
    monkeypatch.setenv("VSRV_CACHE_DIR", str(folder))
    if mode & 0o022:
        with pytest.raises(ConfigError, match="written by others"):
            boot.cache_dir()


def test_a_symbolic_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("VSRV_CACHE_DIR", str(tmp_path / "link"))
    with pytest.raises(ConfigError, match="symbolic link"):
        boot.cache_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    monkeypatch.setenv("VSRV_CACHE_DIR", str(folder))
    with pytest.raises(ConfigError, match="belongs to user id 65534"):
        boot.cache_dir()


def test_without_an_explicit_folder_the_next_candidate_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xdg" / "vsrv").mkdir(parents=True)
    (tmp_path / "xdg" / "vsrv").chmod(0o777)
    monkeypatch.delenv("VSRV_CACHE_DIR", raising=False)
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert boot.cache_dir() == tmp_path / ".cache" / "vsrv"


def test_unpacking_twice_gives_the_same_complete_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSRV_CACHE_DIR", str(tmp_path / "cache"))
    files = [("cpu/__init__.py", b"A = 1\n"), ("cpu/a/x.py", b"B = 2\n")]
    first = boot._unpacked(files, "kernels-1")
    assert boot._unpacked(files, "kernels-1") == first
    assert (first / "cpu" / "a" / "x.py").read_bytes() == b"B = 2\n"
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["kernels-1"]


def test_a_child_finds_the_same_package_from_another_folder(tmp_path: Path) -> None:
    command = [*boot.child_command("version")]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    outside = subprocess.run(
        [sys.executable, "-c", "import vsrv"], cwd=tmp_path, capture_output=True, timeout=30, check=False
    )
    if outside.returncode != 0:
        pytest.skip("vsrv is not installed in this environment")
    assert shown.returncode == 0, shown.stderr
    assert "0.1.0" in shown.stdout


def test_a_peer_that_has_gone_is_seen_behind_what_it_sent() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(b"x")
        assert not boot.peer_has_gone(ours.fileno())
        theirs.close()
        assert boot.peer_has_gone(ours.fileno())
