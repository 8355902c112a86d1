"""Strings ↔ token ids: tokenizer.json, chat templates, incremental detokenising. No HTTP, no torch."""
