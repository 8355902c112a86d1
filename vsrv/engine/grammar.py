"""Constrained sequences: their matchers, built beside the steps, and the masks of what each may sample next.

A grammar is compiled on a thread while its sequence waits (rule R16: under the limits that the front has checked it with), and a copy of
the compiled one is made for every further sequence with the same text. A matcher follows the confirmed tokens alone: it survives
preemption, and it does not care whether results come at once or one step later.
"""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from collections.abc import Sequence as Items
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vsrv import host
from vsrv.engine.sequence import Sequence
from vsrv.messages import GRAMMAR_LIMITS, FinishReason

_MAX_CACHED = 32  # compiled grammars, the least recently used goes first
_MAX_SHARED_TOKENS = (
    8192  # followed by copies of one: their lexer states add up, to 30 MB and to its limit in bad cases
)
_COMPILERS = 2  # threads: a costly grammar is not everybody's wait
_MAX_MASK_THREADS = 8
_TOO_COMPLEX = "the grammar takes too much work at this point of the output"
_CONFLICT = "no token is left that the grammar and the other parameters of the request both allow"


class GrammarFailure(Exception):
    """Ends one sequence. code: "invalid_grammar" before its first token, "grammar_conflict" or "grammar_too_complex" later."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Compiled:
    """A sequence that waited for its grammar: now it has a matcher, or there is a failure to report."""

    sequence: Sequence
    failure: GrammarFailure | None


@dataclass(slots=True)
class Template:
    """A compiled grammar in its first state, and how many tokens its copies have followed."""

    matcher: Any
    tokens: int = 0


class Grammars:
    """Owned by the engine thread, apart from `_compiled`, which threads run. One for each model."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        library = self._library = _library()
        self._tokenizer: Any = library and _tokenizer(library, folder, vocab_size)
        self._limits: Any = library and library.LLParserLimits(**GRAMMAR_LIMITS)
        self._threads = ThreadPoolExecutor(_COMPILERS, "grammar")
        self._waiting: OrderedDict[str, tuple[Future[Any], list[Sequence]]] = OrderedDict()
        self._cache: OrderedDict[str, Template] = OrderedDict()
        threads = max(1, min(_MAX_MASK_THREADS, host.num_cores() - 1))
        self._filler: Any = library and library.LLExecutor(threads)
        self._words = (vocab_size + 31) // 32
        self.num_compiled = 0

    @property
    def num_waiting(self) -> int:
        """Sequences whose grammars are being compiled."""
        return sum(len(sequences) for _, sequences in self._waiting.values())

    def submit(self, sequence: Sequence) -> None:
        """Begin to build a matcher; `compiled` tells when it is there."""
        text = sequence.params.grammar
        if text not in self._waiting:
            future: Future[Any]
            if text in self._cache:
                future = Future()
                future.set_result(self._cache[text].matcher)
            else:
                future = self._threads.submit(self._compiled, text)
            self._waiting[text] = (future, [])
        self._waiting[text][1].append(sequence)

    def withdraw(self, sequence: Sequence) -> None:
        """An aborted sequence waits no longer."""
        entry = self._waiting.get(sequence.params.grammar)
        if entry is not None and sequence in entry[1]:
            entry[1].remove(sequence)

    def compiled(self) -> list[Compiled]:
        """Sequences whose grammar has become ready since the last call, in the order of their grammars' arrival."""
        ready: list[Compiled] = []
        for text in [text for text, (future, _) in self._waiting.items() if future.done()]:
            future, sequences = self._waiting.pop(text)
            try:
                template = future.result()
            except GrammarFailure as failure:
                ready += [Compiled(sequence, failure) for sequence in sequences]
                continue
            self._keep(text, template)
            for sequence in sequences:
                sequence.matcher = template.deep_copy()
                ready.append(Compiled(sequence, None))
        return ready

    def _keep(self, text: str, template: Any) -> None:
        if text not in self._cache:
            self.num_compiled += 1
            self._cache[text] = Template(template)
        self._cache.move_to_end(text)
        while len(self._cache) > _MAX_CACHED:
            self._cache.popitem(last=False)

    def _compiled(self, text: str) -> Any:
        """On a thread: the matcher in its first state, with the first mask computed, since that is the slowest. Raises GrammarFailure."""
        if self._tokenizer is None:
            raise GrammarFailure("invalid_grammar", "this model's tokenizer cannot be used with grammars")
        matcher = self._fresh(text)
        if not matcher.is_error():
            matcher.compute_bitmask()
        if matcher.is_error():
            raise GrammarFailure("invalid_grammar", "the grammar cannot be compiled")
        return matcher

    def _fresh(self, text: str) -> Any:
        return self._library.LLMatcher(self._tokenizer, text, log_level=0, limits=self._limits)

    def _renew(self, sequence: Sequence) -> None:
        """A matcher that fails may owe it to what the others of its template have met: one of its own follows the same tokens."""
        self._cache.pop(sequence.params.grammar, None)
        sequence.matcher = self._fresh(sequence.params.grammar)
        sequence.matcher.consume_tokens(sequence.output_token_ids)

    def masks(self, rows: Items[Sequence]) -> torch.Tensor | None:
        """What each row of a step may sample: int32 [R, ceil(V / 32)], bit i % 32 of word i // 32 for token i; None if all are free."""
        constrained = [
            (sequence.matcher, row)
            for row, sequence in enumerate(rows)
            if sequence.matcher is not None and sequence.finish_reason is FinishReason.NONE
        ]
        if not constrained:
            return None
        masks = np.full((len(rows), self._words), 0xFFFFFFFF, np.uint32)
        self._filler.unsafe_compute_mask_ptr(constrained, masks.ctypes.data, self._words * 4, len(rows))
        for matcher, row in constrained:
            sequence, mask = rows[row], masks[row]
            if matcher.is_error():
                self._renew(sequence)
                sequence.matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
            if sequence.matcher.is_accepting():
                _let_end(mask, self._tokenizer.eos_token, sequence.stop_ids)
        return torch.from_numpy(masks.view(np.int32))

    def accept(self, sequence: Sequence, token: int) -> bool:
        """Follow a confirmed token, already the last of `token_ids`; True if the output is complete with it. Raises GrammarFailure.

        A row in which every token was masked gives a token all the same, so what is read back is checked against all that could mask it.
        """
        matcher = sequence.matcher
        if matcher.is_error():  # `masks` has tried a new one already
            raise GrammarFailure("grammar_too_complex", _TOO_COMPLEX)
        if sequence.is_banned(token):
            raise GrammarFailure("grammar_conflict", _CONFLICT)
        if token in sequence.stop_ids and (matcher.is_accepting() or matcher.validate_tokens([token])):
            return True
        if not matcher.try_consume_tokens([token]):
            refused = not matcher.is_error()
            self._renew(sequence)
            if sequence.matcher.is_error():
                code, message = (
                    ("grammar_conflict", _CONFLICT) if refused else ("grammar_too_complex", _TOO_COMPLEX)
                )
                raise GrammarFailure(code, message)
        self._count(sequence.params.grammar)
        return bool(sequence.matcher.is_stopped())

    def _count(self, text: str) -> None:
        template = self._cache.get(text)
        if template is not None:
            template.tokens += 1
            if template.tokens >= _MAX_SHARED_TOKENS:
                del self._cache[text]

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)


def _let_end(mask: NDArray[np.uint32], marker: int, ends: frozenset[int]) -> None:
    """Where a grammar is satisfied it allows its tokenizer's end token; what ends this sequence takes that place.

    The marker stays if nothing else is left: it then completes the grammar without being an end of the sequence (ignore_eos).
    """
    mask[marker // 32] &= ~np.uint32(1 << marker % 32)
    for token in ends if ends or mask.any() else (marker,):
        mask[token // 32] |= np.uint32(1 << token % 32)


def _library() -> Any:
    """llguidance. The engine can be driven without it, where kernels are tested and nobody asks for grammars: then None, told on stderr."""
    try:
        import llguidance
    except ImportError as error:
        print(f"structured outputs are not available: {error}", file=sys.stderr)
        return None
    return llguidance


def _tokenizer(library: Any, folder: Path, vocab_size: int) -> Any:
    """llguidance's view of the vocabulary; None, told on stderr, where it can make nothing of the file."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        return _loaded(library, path, folder / "config.json", vocab_size)
    except ValueError as error:  # what json raises, too
        print(f"structured outputs are not available: {path}: {error}", file=sys.stderr)
        return None


def _loaded(library: Any, path: Path, config: Path, vocab_size: int) -> Any:
    """Its end token marks where a grammar may end, so it must be one that no text has: a special token, the model's own if it is one."""
    text = path.read_text()
    special = [token["id"] for token in json.loads(text).get("added_tokens") or () if token["special"]]
    named = json.loads(config.read_text()).get("eos_token_id") if config.is_file() else None
    named = named[0] if isinstance(named, list) and named else named
    if not special:
        raise ValueError("no token is special")
    marker = named if named in special else special[-1]
    return library.LLTokenizer(text, n_vocab=vocab_size, eos_token=marker)
