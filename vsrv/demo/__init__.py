"""The embedded demo model: a small chat model that knows which option of vsrv does what.

This folder holds its files (config.json, model.safetensors, tokenizer.json, ...), the script that trains it from nothing
(`python -m vsrv.demo.train --out DIR`) and the one that measures it (`python -m vsrv.demo.evaluate`).
"""

from __future__ import annotations

from pathlib import Path


def model_path() -> Path:
    """The folder of the demo model's files; from an archive they are first copied to the private cache, once."""
    from vsrv import boot

    return boot.unpack_package_folder("demo")
