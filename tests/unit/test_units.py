"""The systemd units: systemd itself finds nothing wrong with them, and little that a broken-into service could do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vsrv.config import resolve
from vsrv.errors import ConfigError
from vsrv.options import CREDENTIALS

UNITS = Path(__file__).resolve().parent.parent.parent / "systemd"
EXPOSURE = {"cpu": 1.4, "gpu": 1.7}  # `systemd-analyze security`: 0 is nothing, 10 everything
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def installed(folder: Path, kind: str) -> dict[str, str]:
    """The units as an operator installs them, with a program that is there; returns an environment in which systemd finds only them
    and its own."""
    for name in ("vsrv@.service", "vsrv@.socket"):
        text = (UNITS / name).read_text().replace("/usr/local/bin/vsrv", sys.executable)
        (folder / name).write_text(text)
    drop_ins = folder / "vsrv@.service.d"
    drop_ins.mkdir()
    shutil.copy(UNITS / f"{kind}.conf", drop_ins)
    return os.environ | {"SYSTEMD_UNIT_PATH": f"{folder}:"}


@needs_systemd
@pytest.mark.parametrize("kind", list(EXPOSURE))
def test_systemd_takes_the_units_without_a_word(tmp_path: Path, kind: str) -> None:
    environ = installed(tmp_path, kind)
    command = ["systemd-analyze", "verify", "--man=no", "vsrv@chat.service", "vsrv@chat.socket"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    # its status is 0 for unknown values too
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
@pytest.mark.parametrize("kind", list(EXPOSURE))
def test_what_a_service_could_do(tmp_path: Path, kind: str) -> None:
    environ = installed(tmp_path, kind)
    unit = str(tmp_path / "vsrv@.service")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", unit]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    overall = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert overall is not None, done.stdout + done.stderr
    print(f"{kind}: {overall[1]}")
    assert float(overall[1]) <= EXPOSURE[kind], done.stdout
    # without its drop-in it is worse, so that the drop-in was looked at
    (tmp_path / "vsrv@.service.d" / f"{kind}.conf").unlink()
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    bare = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert bare is not None and float(bare[1]) > float(overall[1])


def test_the_unit_passes_every_credential_and_needs_none() -> None:
    unit = (UNITS / "vsrv@.service").read_text()
    for name in CREDENTIALS.values():
        assert re.search(rf"^LoadCredential={re.escape(name)}:/etc/vsrv/%i\.", unit, re.MULTILINE)
        assert f"SetCredential={name}:\\n\n" in unit, "a unit stops at a credential that is not there"
    assert "RestartPreventExitStatus=78" in unit and "Type=notify" in unit


def test_credentials_are_taken_unless_something_else_is_given(tmp_path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert resolve({}, environ).get("api-key-file") is None, "nothing is there"
    for name in CREDENTIALS.values():
        (tmp_path / name).write_text("\n")
    config = resolve({}, environ)
    assert all(config.values[option].source == "default" for option in CREDENTIALS), (
        "empty ones count as none"
    )
    (tmp_path / "keys.toml").write_text("keys = []\n")
    config = resolve({}, environ)
    assert config.get("api-key-file") == str(tmp_path / "keys.toml")
    assert config.values["api-key-file"].source == "credential keys.toml"
    other, file = tmp_path / "other.toml", tmp_path / "v.toml"
    other.write_text("keys = []\n")
    file.write_text(f'api-key-file = "{other}"\n')
    assert resolve({"config": str(file)}, environ).values["api-key-file"].source == f"file {file}"
    (tmp_path / "tls.crt").write_text("half a pair")
    with pytest.raises(ConfigError, match="--ssl-certfile needs --ssl-keyfile"):
        resolve({}, environ)
