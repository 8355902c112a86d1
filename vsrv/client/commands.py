"""The client commands: options → what they do. Each returns the exit status and raises ConfigError."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from vsrv.client import batch, chat, complete
from vsrv.client.http import ProtocolError, RequestFailed, Target, given_key, given_url, refused
from vsrv.client.instance import instance
from vsrv.client.session import Session
from vsrv.errors import ConfigError

_LONGEST_LOADING_S = 3600.0  # a server gives up sooner, see --engine-load-timeout


def run_chat(given: argparse.Namespace) -> int:
    """`vsrv chat`."""
    try:
        return chat.run(_session(given), given.system, given.message or "")
    except (RequestFailed, ProtocolError) as error:
        raise refused("", error) from None


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
            asyncio.run(_until_loaded(target))
        except (RequestFailed, ProtocolError) as error:
            raise refused("GET /v1/models: ", error) from None
        return batch.run(options, target)


async def _until_loaded(target: Target) -> None:
    """Wait while the server loads its model, instead of using up every request's tries. Raises ConfigError, RequestFailed, ProtocolError."""
    told, end = False, time.monotonic() + _LONGEST_LOADING_S
    while True:
        try:
            await target.models()
            return
        except RequestFailed as error:
            if error.code != "model_loading" or time.monotonic() > end:
                raise
            if not told:
                print(f"waiting for {target.name}: {error.message}", file=sys.stderr)
                told = True
            await asyncio.sleep(batch.pause_s(0, error.retry_after_s))


def _session(given: argparse.Namespace) -> Session:
    session = Session.of(given.url, given.api_key, given.ca_file, given.model, given.param)
    for name in ("max_tokens", "temperature"):
        if getattr(given, name) is not None:
            session.params[name] = getattr(given, name)
    return session
