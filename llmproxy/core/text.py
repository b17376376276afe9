"""Text that comes in pieces, and text that others may read."""

from __future__ import annotations

import re

# Where nothing better is known: about what English takes.
CHARACTERS_PER_TOKEN = 4

# Keys as providers print them back in errors (sk-…, gsk_…, AIza…, Bearer …, ?key=…), and user info in URLs.
_SECRETS = re.compile(
    r"\b(?:(?:sk|pk|rk|gsk|xai|nvapi|hf|r8|csk|ghp|github_pat|tgp|fw|pplx|key)[-_]|AIza|ya29\.)(?=[\w*-]*[\d*])[\w*-]{8,}"
    r"|(?<=[?&]key=)[^&\s\"']+"
    r"|(?i:(?<=bearer ))[\w.~+/*-]{6,}=*"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


def scrub(text: str) -> str:
    """`text` with everything that looks like a key replaced by `…`."""
    return _SECRETS.sub("…", text)


def overlap(text: str, tag: str) -> int:
    """The length of the longest end of `text` that begins `tag` and is not all of it: what to hold back for now."""
    return next((size for size in range(min(len(text), len(tag) - 1), 0, -1) if tag.startswith(text[-size:])), 0)
