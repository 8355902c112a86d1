"""Entry of `python -m vsrv`, of the console script and of the archive: dispatches to the command line or to a child process."""

from __future__ import annotations

import os
import sys

from vsrv import boot


def main() -> int:
    """Run the command of `sys.argv`; returns the exit status."""
    arguments = sys.argv[1:]
    if len(arguments) == 3 and arguments[0] in ("_engine", "_prepare") and arguments[1] == "--fd":
        return _child(arguments[0], int(arguments[2]))
    if arguments == ["_compile"]:
        from vsrv.kernels.cuda import compile_helpers

        return compile_helpers.main()
    from vsrv import cli

    return cli.main(arguments)


def _child(name: str, fd: int) -> int:
    boot.die_with_parent()  # before the imports, which take seconds
    if boot.peer_has_gone(fd):
        return 0  # before it could be asked for: Linux tells nobody of a parent that has ended already
    boot.dump_stacks_on_signal()
    if name == "_engine":
        # torch's own threads would spin for milliseconds after each of its operations, on the cores that the kernels' threads need next
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        from vsrv.engine import worker

        return worker.main(fd)
    from vsrv import prepare_worker

    return prepare_worker.main(fd)


if __name__ == "__main__":
    sys.exit(main())
