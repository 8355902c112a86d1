"""MODEL → a local folder. A folder stays local and touches no network; a hub id is taken from the cache first."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vsrv.config import ServeConfig
from vsrv.errors import ConfigError, UnsupportedModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]  # never *.bin or *.pt
# The same weights again: Mistral's own form, and subfolders with other formats (original/, onnx/ ...).
_IGNORED = ["consolidated*", "*/*"]
_REPORT_S = 3.0


@dataclass(frozen=True, slots=True)
class HubOptions:
    """Where downloads come from and go to; None takes the Hugging Face defaults (HF_HOME, HF_ENDPOINT, HF_TOKEN …)."""

    revision: str | None = None
    download_dir: str | None = None
    token: str | None = field(default=None, repr=False)


def options_of(config: ServeConfig) -> HubOptions:
    """Where a hub id comes from, by the options of a server."""
    return HubOptions(config.get("revision"), config.get("download-dir"), config.get("hf-token"))


def resolve(model: str, options: HubOptions, progress: Callable[[str], None]) -> Path:
    """The folder of a model, downloaded if it must be. Raises ConfigError that says what to do."""
    return _local(model) or _from_hub(model, options, progress)


def find(model: str, options: HubOptions) -> Path | None:
    """The folder of a model that is complete without a download, else None. Raises ConfigError for what can be no model."""
    return _local(model) or _cached(model, options)


def _local(model: str) -> Path | None:
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise UnsupportedModelError(
            f"{model} is a file; MODEL is a Hugging Face folder with config.json and safetensors, or a hub id"
        )
    if model.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(model):
        raise ConfigError(f"{model}: no such folder, and no hub id of the form organisation/name")
    return None


def _cached(model: str, options: HubOptions) -> Path | None:
    from huggingface_hub import errors

    try:
        folder = _snapshot(model, options, lambda line: None, True)
    except errors.LocalEntryNotFoundError:
        return None
    return folder if is_complete(folder) else None


def _snapshot(model: str, options: HubOptions, progress: Callable[[str], None], local_only: bool) -> Path:
    import huggingface_hub

    return Path(
        huggingface_hub.snapshot_download(
            model,
            revision=options.revision,
            cache_dir=options.download_dir,
            token=options.token or None,
            allow_patterns=_PATTERNS,
            ignore_patterns=_IGNORED,
            local_files_only=local_only,
            tqdm_class=progress_class(model, progress),
        )
    )


def _from_hub(model: str, options: HubOptions, progress: Callable[[str], None]) -> Path:
    from huggingface_hub import errors

    if (folder := _cached(model, options)) is not None:
        return folder
    progress(f"{model} is not in the cache: downloading")
    try:
        folder = _snapshot(model, options, progress, False)
    except errors.GatedRepoError:
        raise ConfigError(f"{model} is gated: accept its terms on the hub and give --hf-token") from None
    except errors.RevisionNotFoundError:
        raise ConfigError(f"{model} has no revision {options.revision!r}: check --revision") from None
    except errors.RepositoryNotFoundError:
        raise ConfigError(
            f"the hub has no model {model}, or it is private: check the name, or give --hf-token"
        ) from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError):
        raise ConfigError(
            f"{model} is not in the cache and the hub cannot be reached: copy the model's folder here and serve its path, or allow the download"
        ) from None
    except (errors.HfHubHTTPError, OSError) as error:
        raise ConfigError(
            f"downloading {model} failed ({type(error).__name__}); run the command again to resume"
        ) from None
    if not is_complete(folder):
        raise UnsupportedModelError(
            f"{model} has no complete safetensors weights; vsrv reads safetensors only"
        )
    progress(f"{model} is in {folder}")
    return folder


def is_complete(folder: Path) -> bool:
    """Whether config, tokenizer and every weight file that the index names are there."""
    import json

    if not (folder / "config.json").is_file() or not (folder / "tokenizer.json").is_file():
        return False
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            files = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return False  # a damaged index: fetch it again
        return all(isinstance(name, str) and (folder / name).is_file() for name in files)
    return (folder / "model.safetensors").is_file()


def progress_class(model: str, progress: Callable[[str], None]) -> type:
    """A stand-in for tqdm that reports lines, every few seconds and at the end: bars belong on terminals, not in logs."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    shown: dict[str, Any] = {"text": "", "at": time.monotonic()}

    class Lines(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self._in_bytes = options.get("unit") == "B"
            self._done = float(options.get("initial") or 0)
            options["disable"] = True  # draws nothing, keeps `total`
            super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            self._done += n or 0
            now = time.monotonic()
            if not self.total or (self._done < self.total and now < shown["at"] + _REPORT_S):
                return
            unit, scale = ("MB", 1e6) if self._in_bytes else ("files", 1)
            text = f"{model}: {self._done / scale:,.6g} of {self.total / scale:,.6g} {unit}"
            if text != shown["text"]:
                shown.update(text=text, at=now)
                progress(text)

    return Lines
