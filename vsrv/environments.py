"""Private environments for the archive, in the cache folder: `vsrv setup` makes one from a lock with hashes, later starts go over into it.

    environments/KIND-<hash of lock, Python and platform>/    a virtual environment; .complete says that it is whole
    environments/current                                      the name of the one that starts use
    environments/.lock                                        held while one is made

What lies there is code: every folder is checked as `boot.private_folder` does, and made so that nobody else can write to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vsrv import archive, boot, requirements
from vsrv.errors import ConfigError
from vsrv.files import replacing

FOLDER = "environments"
LOCK = ".lock"
MAKING = ".making-"  # begins the name of a folder that is not whole yet
PRIVATE = 0o077  # umask of an environment that only its maker runs
_COMPLETE = ".complete"
_CURRENT = "current"
_NAME = re.compile(r"(?:cpu|cuda|own)-[0-9a-f]{32}")
_ABOUT = "import json, sys, sysconfig; print(json.dumps([sys.version, sysconfig.get_platform(), *sys.version_info[:2]]))"
_LEAST = (3, 11)
_PLATFORM = "linux-x86_64"  # that the locks in the archive are for, as sysconfig calls it
_TOLD_LINES = 15  # of pip's last words when it fails
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What an environment is made of. kind: "cpu", "cuda", or "own" for a lock of the user's."""

    kind: str
    lock: str
    python: str  # path of the interpreter that it is made with
    about: str  # version and platform of that interpreter, as it says itself

    @property
    def name(self) -> str:
        digest = hashlib.sha256(f"{self.about}\0{self.lock}".encode()).hexdigest()
        return f"{self.kind}-{digest[:32]}"

    @property
    def num_packages(self) -> int:
        return sum(line[:1].isalnum() for line in self.lock.splitlines())


@dataclass(frozen=True, slots=True)
class Source:
    """Where pip looks: a folder of wheels and nothing else, or an index (without one: what pip is configured for) and further ones."""

    wheels: Path | None = None
    index: str | None = None
    extra: tuple[str, ...] = ()

    def options(self) -> list[str]:
        if self.wheels is not None:
            return ["--no-index", "--find-links", str(self.wheels.resolve())]
        # which index a file comes from does not matter: its hash is in the lock
        further = [word for url in self.extra for word in ("--extra-index-url", url)]
        return [*(["--index-url", self.index] if self.index else []), *further]

    def environ(self) -> dict[str, str]:
        """For pip; with a folder of wheels, what it is configured for does not count."""
        if self.wheels is None:
            return dict(os.environ)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        return kept | {"PIP_CONFIG_FILE": os.devnull}


def plan(kind: str, lock_file: Path | None, python: str | None) -> Plan:
    """Raises ConfigError when the interpreter or the lock cannot be used."""
    python = os.path.abspath(shutil.which(python or sys.executable) or python or sys.executable)
    try:
        done = subprocess.run([python, "-I", "-c", _ABOUT], capture_output=True, text=True, check=True)
        version, platform, major, minor = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise ConfigError(f"--python {python} is no Python that runs: {error}") from None
    if (major, minor) < _LEAST:
        raise ConfigError(f"--python {python} is Python {major}.{minor}; vsrv needs 3.11 or later")
    about = f"{version} {platform}"
    if lock_file is not None:
        try:
            return Plan("own", lock_file.read_text(), python, about)
        except OSError as error:
            raise ConfigError(f"--lock {lock_file}: {error.strerror}") from None
    text = (boot.package_data(f"locks/{kind}.txt") or b"").decode()
    _check_fit(kind, text, f"{major}.{minor}", platform)
    return Plan(kind, text, python, about)


def _check_fit(kind: str, lock: str, version: str, platform: str) -> None:
    match = re.search(r"^# pythons: (.+)$", lock, re.MULTILINE)
    if match is None:
        raise ConfigError(f"this vsrv carries no lock for --{kind}; give one with --lock FILE")
    if version not in match[1].split():
        raise ConfigError(
            f"the lock for --{kind} is for Python {match[1].replace(' ', ', ')}, not for {version}: "
            f"give another with --python, or your own lock with --lock FILE"
        )
    if platform != _PLATFORM:
        raise ConfigError(
            f"the lock for --{kind} is for {_PLATFORM}, not for {platform}: install torch and the other packages "
            f"in an environment of your own, or give your own lock with --lock FILE"
        )


def make(plan: Plan, source: Source, say: Say) -> Path:
    """The environment of a plan, made if it is not there, and from now on the current one. Raises ConfigError."""
    root = boot.private_folder(FOLDER)
    refuse_noexec(root, "set VSRV_CACHE_DIR to another folder")
    target = root / plan.name
    with locked(root / LOCK, say):
        sweep(root)
        if is_complete(target):
            say(f"{target} is there")
        else:
            build(plan, source, target, say)
        with replacing(root / _CURRENT, 0o600) as file:
            file.write(plan.name.encode())
    return target


def refuse_noexec(folder: Path, remedy: str) -> None:
    """Raises ConfigError where libraries cannot be loaded from."""
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise ConfigError(f"nothing can be loaded from {folder}: it is mounted noexec; {remedy}")


@contextlib.contextmanager
def locked(file: Path, say: Say) -> Iterator[None]:
    """One setup at a time; the kernel frees the lock of a process that was killed."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another setup is running; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sweep(root: Path) -> None:
    """Remove what a setup of ours left that was killed; called with the lock held. What its last step may still write goes the next time."""
    for left in root.glob(f"{MAKING}*"):
        status = left.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
            shutil.rmtree(left, ignore_errors=True)


def build(
    plan: Plan,
    source: Source,
    target: Path,
    say: Say,
    umask: int = PRIVATE,
    fill: Callable[[Path], None] = lambda scratch: None,
) -> None:
    """Under another name first, so that the environment, with what `fill` puts into it, is there whole or not at all. Raises ConfigError."""
    began = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix=MAKING, dir=target.parent))
    scratch.chmod(0o777 & ~umask)
    try:
        say(f"{plan.num_packages} packages for {plan.python} ({plan.kind}), each checked against its SHA-256")
        _run(
            [plan.python, "-I", "-m", "venv", str(scratch)],
            say,
            f"install python3-venv, or give another --python than {plan.python}",
            umask,
        )
        lock = scratch / "lock.txt"
        lock.write_text(plan.lock)
        pip = [str(scratch / "bin" / "python"), "-I", "-m", "pip", "install", "--no-input", "--no-deps"]
        pip += ["--disable-pip-version-check", "--only-binary=:all:", "--require-hashes", *source.options()]
        _run([*pip, "-r", str(lock)], say, _advice(plan, source), umask, source.environ())
        fill(scratch)
        about = {"name": plan.name, "kind": plan.kind, "python": plan.about, "packages": plan.num_packages}
        os.sync()  # after a loss of power an environment that is called complete must be so
        (scratch / _COMPLETE).write_text(json.dumps(about))
        _replace(scratch, target)
        say(f"made {target} in {time.monotonic() - began:.0f} s")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _replace(scratch: Path, target: Path) -> None:
    """Put `scratch` in the place of `target`; what was there goes last: an older environment, or one that a disk has lost the half of."""
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=MAKING, dir=target.parent))
        target.rename(old)
        scratch.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        scratch.rename(target)


def _advice(plan: Plan, source: Source) -> str:
    if source.wheels is not None:
        return f"all files of the lock must lie in --wheels {source.wheels}"
    if plan.kind == "cpu":
        return (
            "torch for the CPU alone is not in the public package index: name one that has it with --extra-index URL "
            "(PyTorch's own: its page 'Get started' shows the address for the CPU), or take --cuda, which is larger and runs "
            "without a GPU as well"
        )
    return "look at pip's words above"


def _run(
    command: list[str], say: Say, advice: str, umask: int, environ: dict[str, str] | None = None
) -> None:
    """Run a step and tell what it collects; its last words when it fails. Raises ConfigError."""
    # another's write bit on a file would be a way in; a step must not outlive a setup that is killed
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environ,
        umask=umask,
        preexec_fn=boot.die_with_parent,
    )
    lines: list[str] = []
    count = 0
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip())
        if line.startswith(("Collecting ", "Processing ")):
            count += 1
            say(f"  {count:3} {line.split()[1].rpartition('/')[2].partition(' ')[0]}")
        elif line.startswith("Installing collected"):
            say("  installing them")
    if process.wait() != 0:
        print("\n".join(lines[-_TOLD_LINES:]), file=sys.stderr)
        raise ConfigError(f"setup has failed, nothing was changed: {advice}")


def name_of(environment: Path) -> str | None:
    """`Plan.name` of what a whole environment was made of; None if it is not one."""
    try:
        name = json.loads((environment / _COMPLETE).read_text()).get("name")
    except (OSError, ValueError):
        return None
    return str(name)


def is_complete(environment: Path) -> bool:
    """Raises ConfigError when another user could have made or changed it."""
    if not (environment / _COMPLETE).is_file():
        return False
    boot.check_private(environment)
    return True


def current() -> Path | None:
    """The environment that starts go over into. Raises ConfigError when others can write to it."""
    try:
        root = boot.private_folder(FOLDER)
        name = (root / _CURRENT).read_text()
    except OSError:
        return None
    return root / name if _NAME.fullmatch(name) and is_complete(root / name) else None


def all_of_them() -> list[tuple[Path, int]]:
    """Every environment and its size in bytes."""
    root = boot.private_folder(FOLDER)
    folders = sorted(folder for folder in root.iterdir() if _NAME.fullmatch(folder.name))
    return [(f, sum(p.lstat().st_size for p in f.rglob("*") if not p.is_dir())) for f in folders]


def remove(names: list[str], say: Say) -> None:
    """Remove environments by name. Raises ConfigError for a name that is none."""
    root = boot.private_folder(FOLDER)
    with locked(root / LOCK, say):
        sweep(root)
        for name in names:
            if not _NAME.fullmatch(name) or not (root / name).is_dir():
                raise ConfigError(f"there is no environment {name} in {root}")
            # first of all, so that a start in this moment does not take a half of it
            (root / name / _COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(root / name)
            say(f"removed {name}")


def enter(environment: Path, arguments: list[str]) -> None:
    """Go on as this vsrv with `arguments` under the environment's Python, in the same process. Raises ConfigError, or does not return."""
    for descriptor in archive.inherited():
        os.set_inheritable(descriptor, True)
    python = str(environment / "bin" / "python")
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        # isolated: what was locked is not mixed with PYTHONPATH or the user's own packages
        os.execv(python, [python, "-I", "-X", "vsrv", str(archive.path()), *arguments])
    except OSError as error:
        raise ConfigError(f"{python} cannot be run ({error.strerror}); run: vsrv.pyz setup") from None


def ensure_packages(arguments: list[str]) -> None:
    """Return if this Python has what the archive needs; else go over into the current environment. Raises ConfigError."""
    lacks = requirements.lacking()
    if not lacks:
        return
    if Path(sys.prefix).parent.name == FOLDER:
        missing = ", ".join(map(str, lacks))
        raise ConfigError(f"the private environment {sys.prefix} lacks {missing}; run: vsrv.pyz setup")
    environment = current()
    if environment is not None:
        enter(environment, arguments)
    names = ", ".join(map(str, lacks))
    program = f"{os.path.basename(sys.executable)} {sys.argv[0]}"
    packages = " ".join(f"'{lack.name}{lack.wanted}'" for lack in lacks)
    raise ConfigError(
        f"{sys.executable} lacks {names}; run: {program} setup (makes a private environment; for a service: setup --to FOLDER), "
        f"or, in an environment of your own: pip install {packages}"
    )
