"""The dialects: JSON ↔ frames. Knows HTTP values, text and the engine's client; no sockets, no torch."""
