"""KV blocks: which are free, who shares which, and which content can be found again by its hash.

A full block is named by SHA-256 over its parent's name and its token ids; the first parent covers the tenant's salt and the adapter, so
that nothing is ever shared between tenants (rule R21). A block is registered when the step that fills it is scheduled: every
layer writes all K and V of a step before its attention reads, so a sequence of the same step may already join it.
Owned by the engine thread.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable

from vsrv.engine.sequence import Sequence


class BlockPool:
    """Fixed number of blocks. A block without references is free; it keeps its content's name until it is taken again."""

    def __init__(self, num_blocks: int, block_size: int, enable_prefix_caching: bool) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._caching = enable_prefix_caching
        self._references = [0] * num_blocks
        self._name_of: list[bytes | None] = [None] * num_blocks
        self._block_of: dict[bytes, int] = {}
        # oldest first; taking from the front evicts the least recently used
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_cached(self) -> int:
        return len(self._block_of)

    @property
    def usage(self) -> float:
        """Share of blocks that a sequence holds, 0..1."""
        return 1 - len(self._free) / self.num_blocks

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def match_prefix(self, sequence: Sequence) -> list[int]:
        """Cached blocks of the longest known prefix, never covering the last token: its logits must be computed."""
        if not self._caching or sequence.params.prompt_logprobs is not None:
            return []
        found: list[int] = []
        for index in range((len(sequence.token_ids) - 1) // self.block_size):
            block = self._block_of.get(self._name(sequence, index))
            if block is None:
                break
            found.append(block)
        return found

    def num_evicted_by(self, blocks: list[int]) -> int:
        """How many of `blocks` are free now, so that taking them shrinks `num_free`."""
        return sum(1 for block in blocks if self._references[block] == 0)

    def take_cached(self, sequence: Sequence, blocks: list[int]) -> None:
        """Give a new sequence the blocks that `match_prefix` found."""
        for block in blocks:
            if self._references[block] == 0:
                del self._free[block]
            self._references[block] += 1
        sequence.block_table = array("i", blocks)
        sequence.num_registered_blocks = len(blocks)
        sequence.num_computed_tokens = len(blocks) * self.block_size

    def grow(self, sequence: Sequence, num_tokens: int) -> bool:
        """Let the sequence's table hold `num_tokens`; False, with nothing changed, if there are too few free blocks."""
        missing = self.blocks_for(num_tokens) - len(sequence.block_table)
        if missing > len(self._free):
            return False
        for _ in range(missing):
            block, _none = self._free.popitem(last=False)
            self._forget(block)
            self._references[block] = 1
            sequence.block_table.append(block)
        return True

    def register(self, sequence: Sequence) -> list[int]:
        """Name every block whose tokens are all confirmed and computed or being computed; returns the newly named ones."""
        named: list[int] = []
        if not self._caching:
            return named
        full = min(sequence.num_computed_tokens, len(sequence.token_ids)) // self.block_size
        for index in range(sequence.num_registered_blocks, full):
            block, name = sequence.block_table[index], self._name(sequence, index)
            if name not in self._block_of:  # two sequences may have computed the same content side by side
                self._block_of[name] = block
                self._name_of[block] = name
                named.append(block)
        sequence.num_registered_blocks = max(sequence.num_registered_blocks, full)
        return named

    def forget(self, blocks: Iterable[int]) -> None:
        """The content of these blocks is not what their names say (their step failed)."""
        for block in blocks:
            self._forget(block)

    def release(self, table: array[int]) -> None:
        """Drop one reference on each block. The end of a chain is freed first, so that it is evicted before its start."""
        for block in reversed(table):
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free[block] = None

    def reset_cache(self) -> None:
        """Forget every name; blocks in use stay in use."""
        self.forget(range(self.num_blocks))

    def check(self, tables: Iterable[array[int]]) -> None:
        """Raise AssertionError unless references, free list and names agree with the tables in use."""
        counts = [0] * self.num_blocks
        for table in tables:
            for block in table:
                counts[block] += 1
        assert counts == self._references, "reference counts do not add up"
        assert set(self._free) == {b for b, n in enumerate(counts) if n == 0}, (
            "free list does not match references"
        )
        assert all(self._name_of[b] == name for name, b in self._block_of.items()), (
            "names do not match blocks"
        )
        assert len(self._block_of) == sum(name is not None for name in self._name_of)

    def _forget(self, block: int) -> None:
        name = self._name_of[block]
        if name is not None:
            del self._block_of[name]
            self._name_of[block] = None

    def _name(self, sequence: Sequence, index: int) -> bytes:
        hashes = sequence.block_hashes
        while len(hashes) <= index:
            first = len(hashes) * self.block_size
            ids = array("I", sequence.token_ids[first : first + self.block_size])
            parent = hashes[-1] if hashes else _root(sequence.cache_salt, sequence.adapter_id)
            hashes.append(hashlib.sha256(parent + ids.tobytes()).digest())
        return hashes[index]


def _root(cache_salt: str, adapter_id: str) -> bytes:
    """The parent of first blocks. Lengths are part of it, so that no salt can imitate another salt and adapter."""
    salt, adapter = cache_salt.encode(), adapter_id.encode()
    head = len(salt).to_bytes(4, "little") + len(adapter).to_bytes(4, "little")
    return hashlib.sha256(head + salt + adapter).digest()
