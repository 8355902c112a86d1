"""The embedded demo model: answers questions about vsrv's options. Trained by `vsrv.demo.train`, measured by `vsrv.demo.evaluate`."""

from __future__ import annotations

from pathlib import Path

from vsrv import boot


def model_path() -> Path:
    """The model's folder; a private copy when vsrv runs from an archive."""
    return boot.unpack_package_folder("demo")
