"""The client commands: options → what they do. Each returns the exit status and raises ConfigError."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from vsrv.client import batch, chat, complete
from vsrv.client.http import ProtocolError, RequestFailed, Target, given_key, given_url
from vsrv.client.instance import instance
from vsrv.client.session import Session
from vsrv.errors import ConfigError


def run_chat(given: argparse.Namespace) -> int:
    """`vsrv chat`."""
    try:
        return chat.run(_session(given), given.system, given.message or "")
    except (RequestFailed, ProtocolError) as error:
        raise ConfigError(f"{error}; is --api-key right?") from None


def run_complete(given: argparse.Namespace) -> int:
    """`vsrv complete`."""
    return complete.run(_session(given), complete.prompt_of(given.prompt, given.file), given.echo)


def run_batch(given: argparse.Namespace, serve_arguments: Sequence[str]) -> int:
    """`vsrv run-batch`. serve_arguments: what is meant for a server of its own."""
    if not given.input_file or not given.output_file:
        raise ConfigError("-i FILE and -o FILE are needed: requests in, results out")
    options = batch.BatchOptions(
        Path(given.input_file), Path(given.output_file), given.concurrency, given.max_retries
    )
    options.check()
    with contextlib.ExitStack() as stack:
        if given.url:
            if serve_arguments:
                raise ConfigError(
                    f"{serve_arguments[0]} is for a server of its own, and --url names one that runs"
                )
            target = Target.of(given_url(given.url), given_key(given.api_key), given.ca_file)
        else:
            batch.checked(options.input)  # before a model is loaded for it
            target = stack.enter_context(instance(serve_arguments, given.api_key or ""))
        try:
            asyncio.run(target.models())
        except (RequestFailed, ProtocolError) as error:
            raise ConfigError(f"GET /v1/models: {error}; is --api-key right?") from None
        return batch.run(options, target)


def _session(given: argparse.Namespace) -> Session:
    session = Session.of(given.url, given.api_key, given.ca_file, given.model, given.param)
    for name in ("max_tokens", "temperature"):
        if getattr(given, name) is not None:
            session.params[name] = getattr(given, name)
    return session
