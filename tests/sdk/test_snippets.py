"""The Python snippets of docs/dialects.md, as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sdk.matrix import LOCAL_GREETING
from tests.servers import Server

PAGE = Path(__file__).parents[2] / "docs" / "dialects.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[text.split()[1] for text in SNIPPETS])
def test_it_runs(polyglot: Server, snippet: str) -> None:
    """Each prints the greeting of the embedded model, and nothing else."""
    code = snippet.replace("http://127.0.0.1:8080", polyglot.url)
    assert polyglot.url in code
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == {LOCAL_GREETING}


def test_each_sdk_has_one() -> None:
    """OpenAI, Anthropic, Google and Ollama."""
    assert len(SNIPPETS) == 4
