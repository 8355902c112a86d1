"""Files that are replaced in one step."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path, mode: int) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends well: nobody sees half of it, and a link is not followed.

    mode: permissions, less the umask, from its first moment on. Raises OSError; `path` is as it was then.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with open(os.open(scratch, flags, mode), "wb") as file:
            yield file
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
