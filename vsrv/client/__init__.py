"""Clients of any OpenAI-compatible server: the connection, chat, completion and batches. Nothing of the server is imported here."""

DEFAULT_URL = "http://127.0.0.1:8000"  # where `vsrv serve` listens
