"""Coverage-guided fuzzing of one target, or of all of them one after another, for a bounded time.

    .venv/bin/pip install -e '.[test-full]'
    .venv/bin/python tests/fuzz/fuzz.py [TARGET] [--seconds 60] [--corpus FOLDER]

Each target has a process of its own. The exit status is that of the first with a finding, whose input libFuzzer writes to the
folder for temporary files as vsrv-TARGET-crash-…; `TARGET --replay FILE` runs one again. With --corpus, what is
interesting is kept for the next time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]


def drive(name: str, seconds: int, corpus: Path) -> None:
    """Fuzz one target in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["vsrv"]):
        from targets import TARGETS
    target = TARGETS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
        target.run(seed)  # lazy imports and the tokenizer, before the clock runs
    flags = [
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    flags.append(f"-artifact_prefix={tempfile.gettempdir()}/vsrv-{name}-")
    atheris.Setup([sys.argv[0], *flags, str(corpus)], target.run)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", nargs="?")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--replay", type=Path)
    options = parser.parse_args()
    from targets import TARGETS

    names = [options.target] if options.target else list(TARGETS)
    if not set(names) <= set(TARGETS):
        parser.error(f"no target {names[0]}; there are {', '.join(TARGETS)}")
    if options.replay is not None:
        TARGETS[names[0]].run(options.replay.read_bytes())
        return 0
    for name in names:
        with tempfile.TemporaryDirectory() as fresh:
            corpus = options.corpus / name if options.corpus else Path(fresh)
            code = f"import fuzz, pathlib; fuzz.drive({name!r}, {options.seconds}, pathlib.Path({str(corpus)!r}))"
            done = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); {code}",
                ],
                timeout=options.seconds + 120,
                capture_output=True,
                text=True,
            )
        executed = [
            line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line
        ]
        covered = [line.split("cov: ")[1].split()[0] for line in done.stderr.splitlines() if "cov: " in line]
        print(
            f"{name}: {executed[-1] if executed else 'no'} executions in {options.seconds} s, "
            f"{covered[-1] if covered else 'no'} edges, exit {done.returncode}"
        )
        if done.returncode != 0 or not executed:
            print(done.stdout[-2000:] + done.stderr[-4000:])
            return done.returncode or 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
