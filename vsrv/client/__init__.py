"""Clients of any OpenAI-compatible server: the connection, chat, completion and batches. Nothing of the server is imported here."""
