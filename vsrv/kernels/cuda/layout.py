"""Where K and V of a token lie: the contract between the kernel that writes the cache and the two that read it.

A block holds BLOCK tokens. K and V of a layer are each [blocks, kv_heads, head_dim / 64, BLOCK, 64] 16-bit values, head_dim padded to a
multiple of 64 with zeros. In a row of 64 values (128 bytes) the 16-byte chunk c of token r stands at chunk c ^ (r % 8): the same bytes
are conflict-free for ldmatrix once they lie in shared memory, so that one linear copy moves a block, and they are an operand of wgmma in
its 128-byte swizzle. The pool starts zeroed and padding is never written: it must stay finite, since 0 * NaN is NaN.
"""

from __future__ import annotations

BLOCK = 16  # tokens; the m16 of mma.m16n8k16 and the smallest unit of prefix reuse
ROW = 64  # values of one swizzled row


def halves(head_dim: int) -> int:
    """Rows of 64 values for one token and head."""
    return (head_dim + ROW - 1) // ROW


def page_values(head_dim: int) -> int:
    """16-bit values of one block of one KV head (K or V)."""
    return halves(head_dim) * BLOCK * ROW


def block_bytes(num_kv_heads: int, head_dim: int) -> int:
    """Bytes of one block's K (V takes the same)."""
    return num_kv_heads * page_values(head_dim) * 2
