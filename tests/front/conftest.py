"""What the tests of the front share."""

from __future__ import annotations

from pathlib import Path

import pytest
from served import save_tokenizer


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tests' tokenizer; nobody writes into it."""
    made: Path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(made)
    return made
