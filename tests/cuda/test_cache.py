"""Compiled kernels by content: keys, the private folder, shipped cubins, helpers, and what a host that cannot compile is told."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy
import pytest
import sample_kernels

from vsrv.errors import ConfigError
from vsrv.kernels.cuda import cache, compile_helpers, variants
from vsrv.kernels.cuda.source import KernelSource, NoInstructions, parse_arch, specialise

ROOT = Path(__file__).parent.parent.parent
SM_80, SM_90A = parse_arch("sm_80"), parse_arch("sm_90a")
SCALE = specialise(sample_kernels.make_scale, n=4)
ELF = b"\x7fELF"
TABLE = """
from vsrv.kernels.cuda import sample_kernels
from vsrv.kernels.cuda.source import specialise

def shipped(arch):
    return (specialise(sample_kernels.make_scale, n=4), specialise(sample_kernels.make_helped))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder; where its cubins lie."""
    monkeypatch.setenv("VSRV_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cubins"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the package with the sample kernels in it and in its table of shipped ones."""
    root = tmp_path / "tree"
    shutil.copytree(ROOT / "vsrv", root / "vsrv", ignore=shutil.ignore_patterns("__pycache__", "demo"))
    for name in ("build_zipapp.py", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    shutil.copy(Path(sample_kernels.__file__), root / "vsrv/kernels/cuda/sample_kernels.py")
    (root / "vsrv/kernels/cuda/variants.py").write_text(TABLE)
    return root


def python(program: str, path: Path, cache_dir: Path) -> str:
    """Run a program with `path` first in sys.path; returns what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(path), "VSRV_CACHE_DIR": str(cache_dir)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], env=environment, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---------------------------------------------------------------- keys


def test_key_depends_on_everything_that_makes_the_code(folder: Path) -> None:
    usual = {"name": "k", "arguments": ("*f32",), "threads": 32, "shared_bytes": 0, "parameters": ()}
    now: dict[str, Any] = {}

    def make_changing(ops: Any, n: int) -> KernelSource:
        """Its spec stays equal, so that only what it describes can tell two kernels apart."""
        return KernelSource(function=lambda out: None, **{**usual, **now})

    keys = []
    for change in (
        {},
        {"name": "l"},
        {"arguments": ("*u32",)},
        {"threads": 64},
        {"shared_bytes": 16},
        {"parameters": (1,)},
        {"min_blocks": 2},
        {"max_registers": 64},
    ):
        now = change
        keys.append(cache.CubinCache(SM_80).key(specialise(make_changing, n=1)))
    now = {}
    assert cache.CubinCache(SM_80).key(specialise(make_changing, n=1)) == keys[0]
    keys.append(cache.CubinCache(SM_80).key(specialise(make_changing, n=2)))
    keys += [
        cache.CubinCache(arch).key(specialise(make_changing, n=1)) for arch in (SM_90A, parse_arch("sm_90"))
    ]
    assert len(set(keys)) == len(keys) == 11
    assert all(len(key) == 64 for key in keys)


def test_key_follows_the_texts(tree: Path, tmp_path: Path) -> None:
    """A kernel's own text, what it imports and the toolchain change its key; another kernel's text does not."""
    program = (
        "from vsrv.kernels.cuda import cache, sample_kernels\n"
        "from vsrv.kernels.cuda.source import parse_arch, specialise\n"
        "print(cache.CubinCache(parse_arch('sm_80')).key(specialise(sample_kernels.make_scale, n=4)))\n"
    )
    kernels = tree / "vsrv/kernels/cuda"
    (kernels / "layout.py").write_text("from vsrv.kernels.cuda import layout_parts\n")
    (kernels / "layout_parts.py").write_text("A = 1\n")
    with open(kernels / "sample_kernels.py", "a") as own:
        own.write("\n\ndef late():\n    from vsrv.kernels.cuda.layout import A\n    return A\n")
    keys = [python(program, tree, tmp_path)]
    for name in (
        "sample_kernels.py",
        "layout.py",
        "layout_parts.py",
        "intrinsics.py",
        "compiler.py",
        "source.py",
    ):
        with open(kernels / name, "a") as text:
            text.write("# changed\n")
        keys.append(python(program, tree, tmp_path))
    assert len(set(keys)) == 7
    (kernels / "another.py").write_text("A = 1\n")
    for name in ("launcher.py", "device.py"):
        with open(kernels / name, "a") as text:
            text.write("# changed\n")
    assert python(program, tree, tmp_path) == keys[-1]


def test_parameters_have_a_stable_text() -> None:
    for value in (object(), [1], {"a": 1}, (1, [2])):
        with pytest.raises(TypeError, match="parameter n is a "):
            specialise(sample_kernels.make_scale, n=value)
    assert specialise(sample_kernels.make_scale, n=4, shared_bytes=0) == specialise(
        sample_kernels.make_scale, shared_bytes=0, n=4
    )


# ---------------------------------------------------------------- the stand-in for instructions


def test_factories_are_described_without_numba() -> None:
    source = specialise(sample_kernels.make_helped).describe()
    assert (source.name, source.arguments, source.threads) == ("helped", ("*f32", "*f32"), 32)


def test_no_instructions_decide_nothing() -> None:
    ops: Any = NoInstructions()
    assert isinstance((ops.u32(3) << 2) * -ops.f32(1.0) + 2 ** ops.half("x").mma[0], NoInstructions)
    for use in (bool, list, len, int, float, lambda value: range(value), lambda value: value < 3):
        with pytest.raises(TypeError, match="which only a compiler knows"):
            use(ops.u32(1))
    with pytest.raises(TypeError, match="whole numbers"):
        KernelSource("k", lambda: None, (), ops.u32(32), 0, ())


@pytest.mark.parametrize(
    "kinds", [("*f32",), ("*f32", "f32", "i32"), ("*f32", "f64"), ("*f64", "i32"), ("*i64", "u64")]
)
def test_arguments_and_kinds_agree(kinds: tuple[str, ...]) -> None:
    KernelSource("k", lambda out, count: None, ("*f32", "i32"), 32, 0, ())
    with pytest.raises(TypeError, match="kernel k: 2 arguments against kinds"):
        KernelSource("k", lambda out, count: None, kinds, 32, 0, ())


# ---------------------------------------------------------------- the private folder


def test_compiled_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = cache.CubinCache(SM_90A)
    assert here.find(SCALE) is None
    cubin = here.get(SCALE)
    assert cubin.startswith(ELF)
    assert [path.name for path in folder.iterdir()] == [f"{here.key(SCALE)}.cubin"]
    assert (folder.stat().st_mode & 0o777, next(folder.iterdir()).stat().st_mode & 0o777) == (0o700, 0o600)
    monkeypatch.setattr(cache, "_import_compiler", lambda: pytest.fail("compiled again"))
    assert cache.CubinCache(SM_90A).get(SCALE) == cubin


def test_machine_code_does_not_depend_on_what_was_compiled_before(folder: Path, tmp_path: Path) -> None:
    """numba counts functions in their names; archives would differ from build to build."""
    program = (
        "import sys, hashlib, sample_kernels\n"
        "from vsrv.kernels.cuda import cache\n"
        "from vsrv.kernels.cuda.source import parse_arch, specialise\n"
        "specs = [specialise(sample_kernels.make_helped), specialise(sample_kernels.make_scale, n=4)]\n"
        "here = cache.CubinCache(parse_arch('sm_80'))\n"
        "made = {s.label: hashlib.sha256(here.compile(s)).hexdigest() for s in specs[:: int(sys.argv[1])]}\n"
        "print(sorted(made.items()))\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/cuda'}"}
    made = [
        subprocess.run(
            [sys.executable, "-c", program, step], env=environment, capture_output=True, timeout=100
        ).stdout
        for step in ("1", "-1")
    ]
    assert made[0] == made[1] and b"make_helped" in made[0]


@pytest.mark.parametrize("damage", ["empty", "short", "flipped"])
def test_a_damaged_entry_is_compiled_again(folder: Path, damage: str) -> None:
    here = cache.CubinCache(SM_80)
    cubin = here.get(SCALE)
    path = folder / f"{here.key(SCALE)}.cubin"
    data = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "short": data[:1000], "flipped": data[:99] + bytes([data[99] ^ 1]) + data[100:]}[
            damage
        ]
    )
    assert here.find(SCALE) is None
    assert here.get(SCALE) == cubin
    assert path.read_bytes() == data


def test_entries_that_others_can_write_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store("k" * 64, ELF)
    path = folder / f"{'k' * 64}.cubin"
    assert cache._kept("k" * 64) == ELF
    path.chmod(0o620)
    with pytest.raises(ConfigError, match="can be written by others; delete it"):
        cache._kept("k" * 64)
    path.chmod(0o600)
    other = os.geteuid() + 1
    monkeypatch.setattr(cache.boot, "private_folder", lambda name: folder)  # it would refuse beforehand
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(ConfigError, match="belongs to another user"):
        cache._kept("k" * 64)


def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    cache.store("k" * 64, ELF)
    (folder / f"{'l' * 64}.cubin").symlink_to(folder / f"{'k' * 64}.cubin")
    with pytest.raises(ConfigError, match="cannot be opened: .*; delete it"):
        cache._kept("l" * 64)


def test_a_folder_that_others_can_write_is_refused(folder: Path) -> None:
    cache.store("k" * 64, ELF)
    folder.chmod(0o770)
    for use in (lambda: cache._kept("k" * 64), lambda: cache.store("k" * 64, ELF)):
        with pytest.raises(ConfigError, match="can be written by others; run: chmod"):
            use()


def test_store_is_atomic(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted store leaves the old entry and no scratch file."""
    cache.store("k" * 64, ELF + b"old")

    def interrupted(source: Any, target: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(ConfigError, match="No space left on device; set VSRV_CACHE_DIR"):
        cache.store("k" * 64, ELF + b"new")
    assert cache._kept("k" * 64) == ELF + b"old"
    assert len(list(folder.iterdir())) == 1


# ---------------------------------------------------------------- shipped cubins, helpers


def test_archive_ships_cubins_for_a_host_without_a_compiler(tree: Path, tmp_path: Path) -> None:
    """Two builds are equal; the archive's kernels are found where numba cannot be imported and the cache folder cannot be used."""
    archives = [tmp_path / f"{number}.pyz" for number in (1, 2)]
    for number, archive in enumerate(archives):
        command = [
            sys.executable,
            str(tree / "build_zipapp.py"),
            "--output",
            str(archive),
            "--cubins",
            "sm_80,sm_90a",
        ]
        environment = {**os.environ, "PYTHONHASHSEED": str(number), "SOURCE_DATE_EPOCH": "0"}
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=110
        )
        assert done.returncode == 0, done.stderr
        assert "make_helped() for sm_90a" in done.stderr
    assert (
        hashlib.sha256(archives[0].read_bytes()).digest() == hashlib.sha256(archives[1].read_bytes()).digest()
    )
    with zipfile.ZipFile(archives[0]) as zipped:
        cubins = [member for member in zipped.infolist() if member.filename.endswith(".cubin")]
    assert len(cubins) == 4
    assert {member.compress_type for member in cubins} == {zipfile.ZIP_STORED}
    data = archives[0].read_bytes()
    for member in cubins:  # in place: an ELF image wants its sections aligned as in a file of its own
        name, extra = struct.unpack_from("<HH", data, member.header_offset + 26)
        begin = member.header_offset + 30 + name + extra
        assert begin % 128 == 0 and data[begin : begin + 4] == ELF
    program = (
        "import sys\n"
        "sys.modules['numba'] = None\n"
        "from vsrv.kernels.cuda import cache, variants\n"
        "from vsrv.kernels.cuda.source import parse_arch\n"
        "assert '.pyz' in cache.__file__\n"
        "for arch in map(parse_arch, ('sm_80', 'sm_90a')):\n"
        "    for spec in variants.shipped(arch):\n"
        "        print(cache.CubinCache(arch).find(spec)[:4])\n"
    )
    assert python(program, archives[0], Path("/proc/nowhere")) == f"{ELF!r}\n" * 4


def test_a_damaged_archive_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Path
) -> None:
    program = (
        "from vsrv.kernels.cuda import cache, sample_kernels\n"
        "from vsrv.kernels.cuda.source import parse_arch, specialise\n"
        "here, spec = cache.CubinCache(parse_arch('sm_80')), specialise(sample_kernels.make_scale, n=4)\n"
        "shipped = cache.Path(cache.__file__).parent / 'cubins' / (here.key(spec) + '.cubin')\n"
        "shipped.parent.mkdir()\n"
        "shipped.write_bytes(cache.sealed(b'good'))\n"
        "print(here.find(spec))\n"
        "shipped.write_bytes(b'x' * 100)\n"
        "try:\n    here.find(spec)\nexcept cache.ConfigError as error:\n    print(error)\n"
    )
    words = python(program, tree, tmp_path / "cache").splitlines()
    assert words[0] == "b'good'"
    assert words[1].startswith("the shipped kernel ") and words[1].endswith(
        " is damaged; download or install vsrv again"
    )


HELPED = """
from vsrv.kernels.cuda import cache, compile_helpers, sample_kernels
from vsrv.kernels.cuda.source import parse_arch, specialise
from vsrv.errors import ConfigError
def make_local(ops):
    return sample_kernels.make_helped(ops)
here, lines = cache.CubinCache(parse_arch("sm_80")), []
names = [specialise(sample_kernels.make_scale, n=n) for n in (1, 2, 3)]
specs = [*names, specialise(make_local), names[0]]
"""


def test_helpers_fill_the_cache(tree: Path, tmp_path: Path) -> None:
    """Three kernels by helpers, one of a file that they cannot import here, and all of them with their progress."""
    program = HELPED + (
        "import sys, os\n"
        "os.sched_getaffinity = lambda pid: {0, 1}\n"
        "made = compile_helpers.cubins(here, specs, lines.append)\n"
        "assert len(made) == 4 and all(cubin[:4] == b'\\x7fELF' for cubin in made.values())\n"
        "print(*lines, sep='\\n')\n"
        "assert all(here.find(spec) == cubin for spec, cubin in made.items())\n"
        "lines.clear()\n"
        "assert compile_helpers.cubins(here, specs, lines.append) == made and not lines\n"
    )
    program = program.replace("import sys, os", "import os, sys")
    script = tmp_path / "script.py"
    script.write_text(program)
    lines = python(f"import runpy; runpy.run_path({str(script)!r})", tree, tmp_path / "cache").splitlines()
    assert lines[0] == "compiling 4 GPU kernels, 2 at a time"
    assert len(lines) == 5
    assert sorted(line.split(" for sm_80, ")[0] for line in lines[1:]) == [
        "compiled make_local()",
        *(f"compiled make_scale(n={n})" for n in (1, 2, 3)),
    ]
    assert [line.split(", ")[-2] for line in lines[1:]] == [f"{n} of 4" for n in (1, 2, 3, 4)]


def test_a_helper_that_fails_or_dies_ends_the_compilation(tree: Path, tmp_path: Path) -> None:
    """The helper's own refusal comes back; one that is killed is an error and not a wait for ever."""
    with open(tree / "vsrv/kernels/cuda/sample_kernels.py", "a") as kernels:
        kernels.write(
            "\n\ndef make_refused(ops: Any) -> KernelSource:\n"
            "    from vsrv.errors import ConfigError\n"
            "    if not isinstance(ops.u32, type(ops)):\n"
            "        raise ConfigError('refused here')\n"
            "    return make_helped(ops)\n"
            "\n\ndef make_fatal(ops: Any) -> KernelSource:\n"
            "    import os, signal\n"
            "    if not isinstance(ops.u32, type(ops)):\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "    return make_helped(ops)\n"
        )
    program = HELPED + (
        "for bad in (sample_kernels.make_refused, sample_kernels.make_fatal):\n"
        "    try:\n"
        "        compile_helpers.cubins(here, [specialise(bad), *names], lines.append)\n"
        "    except ConfigError as error:\n"
        "        print(error)\n"
    )
    words = python(program, tree, tmp_path / "cache").splitlines()
    assert words == [
        "refused here",
        "the process that compiles make_fatal() ended with status -9; its words are in the log",
    ]


def test_a_helper_compiles_kernels_of_vsrv_alone(folder: Path) -> None:
    task = '{"module": "os", "factory": "system", "parameters": {}, "arch": "sm_80", "key": ""}\n'
    done = subprocess.run(
        [sys.executable, "-m", "vsrv", "_compile"],
        input=task,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == '{"refusal": "os holds no kernels of vsrv"}\n'
    assert done.returncode == 0


def test_one_kernel_is_compiled_in_this_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a helper for one kernel"))
    lines: list[str] = []
    made = compile_helpers.cubins(cache.CubinCache(SM_80), [SCALE, SCALE], lines.append)
    assert made[SCALE].startswith(ELF) and lines[0] == "compiling a GPU kernel" and len(lines) == 2


# ---------------------------------------------------------------- hosts that cannot compile

LACKING = """
import importlib.abc, os, sys
lacks = sys.argv[1].split(",")
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if any(name == module or name.startswith(module + ".") for module in lacks):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
if "numba_cuda" in lacks:  # its .pth file is not there either
    sys.meta_path[:] = [finder for finder in sys.meta_path if "numba_cuda" not in type(finder).__module__]
if sys.argv[2]:
    from cuda import pathfinder
    found = pathfinder.load_nvidia_dynamic_lib
    def load(name):
        if name in sys.argv[2].split(","):
            raise pathfinder.DynamicLibNotFoundError(name)
        return found(name)
    pathfinder.load_nvidia_dynamic_lib = load
if sys.argv[2] == "libdevice":
    from numba.cuda.cudadrv import nvvm
    nvvm.get_libdevice = lambda: None
import sample_kernels
from vsrv.errors import ConfigError
from vsrv.kernels.cuda import cache
from vsrv.kernels.cuda.source import parse_arch, specialise
if "numpy.row_stack" in lacks:  # as with numpy 2.5
    import numba, numba.np.arrayobj, numpy
    vars(numpy).pop("row_stack", None)
try:
    cache.CubinCache(parse_arch("sm_80")).get(specialise(sample_kernels.make_scale, n=4))
except ConfigError as error:
    print(error)
"""


def lacking(tmp_path: Path, modules: str = "", libraries: str = "") -> str:
    """What a host without these modules and libraries is told."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/cuda'}",
        "VSRV_CACHE_DIR": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-c", LACKING, modules, libraries]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("numba", "missing: No module named 'numba"),
        ("numba_cuda", "missing: numba-cuda"),
        ("cuda.core", "missing: No module named 'cuda.core'"),
        ("cuda.bindings", "missing: No module named 'cuda.bindings'"),
        ("llvmlite", "missing: "),
    ],
)
def test_a_host_without_a_package_is_told(tmp_path: Path, module: str, said: str) -> None:
    words = lacking(tmp_path, modules=module)
    assert (
        words.startswith("GPU kernels cannot be compiled here without numba and numba-cuda (")
        and said in words
    )
    assert words.endswith("; run: pip install '.[cuda]' in vsrv's source tree, or vsrv.pyz setup --cuda")


def test_a_numpy_newer_than_the_compiler_is_told(tmp_path: Path) -> None:
    words = lacking(tmp_path, modules="numpy.row_stack")
    assert words.startswith(f"numba-cuda does not go with numpy {numpy.__version__} (")
    assert "row_stack" in words and words.endswith("or vsrv.pyz setup --cuda")


@pytest.mark.parametrize(
    ("library", "wheel"),
    [
        ("nvvm", "nvidia-nvvm==13.0.*"),
        ("nvrtc", "nvidia-cuda-nvrtc==13.0.*"),
        ("nvJitLink", "nvidia-nvjitlink==13.0.*"),
    ],
)
def test_a_host_without_a_library_is_told(tmp_path: Path, library: str, wheel: str) -> None:
    words = lacking(tmp_path, libraries=library)
    assert f"cannot be compiled here without lib{library} (" in words
    assert words.endswith(f"; install a CUDA toolkit or run: pip install '{wheel}'")


def test_a_host_without_any_library_is_told_at_once(tmp_path: Path) -> None:
    words = lacking(tmp_path, libraries="nvvm,nvrtc,nvJitLink")
    assert words.endswith("'nvidia-cuda-nvrtc==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-nvjitlink==13.0.*'")


def test_a_host_without_libdevice_is_told(tmp_path: Path) -> None:
    """numba looks for it by rules of its own, after libnvvm has been found."""
    words = lacking(tmp_path, libraries="libdevice")
    assert words.startswith("kernel scale cannot be compiled: ") and "libdevice" in words
    assert words.endswith("; install a CUDA toolkit or run: pip install 'nvidia-nvvm==13.0.*'")


def test_ptx_of_a_newer_libnvvm_is_explained() -> None:
    from vsrv.kernels.cuda import compiler

    with pytest.raises(ConfigError, match="libnvvm is newer than nvJitLink; run: pip install 'nvidia-nvvm=="):
        compiler.cubin_of(".version 99.0\n.target sm_80\n.address_size 64\n", SM_80, None)


# ---------------------------------------------------------------- the table of shipped kernels


@pytest.mark.parametrize("arch", ["sm_80", "sm_89", "sm_90a"])
def test_shipped_variants_are_few_and_different(arch: str) -> None:
    here = cache.CubinCache(parse_arch(arch))
    keys = [here.key(spec) for spec in variants.shipped(here.arch)]
    assert len(set(keys)) == len(keys) <= variants.MOST_ROWS
