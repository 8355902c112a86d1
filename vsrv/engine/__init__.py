"""Sequences of token ids in, token ids out: blocks, scheduler, batches, sampling. No strings, no HTTP, no asyncio."""
