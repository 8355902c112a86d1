"""Bytes ↔ Request and Response on h11 and asyncio. Knows no JSON, no OpenAI and no model."""
