"""The embedded toy model `local/tiny`: its generated dialogues, its training script and its weights."""

from __future__ import annotations

from pathlib import Path

PATH = Path(__file__).parent / "weights"
