"""vsrv: an OpenAI-compatible LLM server that one person can deploy, read and trust."""

__version__ = "0.1.0"
