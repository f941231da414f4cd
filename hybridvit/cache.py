"""Where files are kept that were fetched or converted once. Importing it needs no torch."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$HYBRIDVIT_CACHE, or hybridvit in the user's cache."""
    if folder := os.environ.get("HYBRIDVIT_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hybridvit"
