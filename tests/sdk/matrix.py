"""Which client SDK is shown over which source, for what: the tests' parameters and the table of docs/dialects.md.

`python -m tests.sdk.matrix` prints the table; `--write docs/dialects.md` and `--check docs/dialects.md` keep it there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from llmproxy.core.page_table import run
from tests.fakes import scenarios

CLIENTS = ("openai-chat", "openai-responses", "anthropic", "google-genai", "ollama")
# A source is a provider of the server under test, or the embedded model.
SOURCES = ("local/tiny", "oai", "claude", "gem")
MODES = ("whole", "stream")
SCENARIOS = ("text", "tools", "image", "schema", "refused", "cut", "thinks")

FAKES: Mapping[str, str] = {"oai": "OpenAI", "claude": "Anthropic", "gem": "Gemini"}
LOCAL = "local/tiny"
LOCAL_GREETING = "Hello! How can I help you?"

# What the rows and columns are called on the page.
CLIENT_NAMES: Mapping[str, str] = {
    "openai-chat": "openai, chat",
    "openai-responses": "openai, responses",
    "anthropic": "anthropic",
    "google-genai": "google-genai",
    "ollama": "ollama",
}
SOURCE_NAMES: Mapping[str, str] = {
    LOCAL: "`local/tiny`",
    "oai": "an OpenAI upstream",
    "claude": "an Anthropic upstream",
    "gem": "a Gemini upstream",
}
SCENARIO_NAMES: Mapping[str, str] = {
    "text": "text",
    "tools": "two tool calls",
    "image": "image",
    "schema": "JSON schema",
    "refused": "error",
    "cut": "cut answer",
    "thinks": "reasoning",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One square of the matrix: shown by a test, or not, and then `reason` says why in a few words.

    A shown cell may have a `reason` too: what is shown instead of the whole.
    """

    shown: bool = True
    reason: str = ""


_LOCAL: Mapping[str, Cell] = {
    "tools": Cell(True, "one call at a time"),
    "image": Cell(False, "sees no images"),
    "refused": Cell(True, "a prompt over its window"),
    "cut": Cell(False, "there is no connection to lose"),
    "thinks": Cell(False, "does not reason"),
}


def _cell(client: str, source: str, mode: str, scenario: str) -> Cell:
    return _LOCAL.get(scenario, Cell()) if source == LOCAL else Cell()


EXPECTED: Mapping[tuple[str, str, str, str], Cell] = {
    (client, source, mode, scenario): _cell(client, source, mode, scenario)
    for client in CLIENTS
    for source in SOURCES
    for mode in MODES
    for scenario in SCENARIOS
}


def cells(client: str, scenario: str) -> pytest.MarkDecorator:
    """`@cells("anthropic", "text")` gives a test its parameters `source` and `stream`, for each cell that is shown."""
    found = [
        pytest.param(source, mode == "stream", id=f"{source.replace('/', '-')}-{mode}")
        for source, mode in _shown(client, scenario)
    ]
    return pytest.mark.parametrize(("source", "stream"), found)


def model_of(source: str, scenario: str, unique: str = "") -> str:
    """The model's name for a request; `unique` makes it another model that does the same (failures are remembered)."""
    if source == LOCAL:
        return LOCAL
    return f"{source}/{scenario}+{unique}" if unique else f"{source}/{scenario}"


def greeting(source: str) -> str:
    """What the scenario `text` answers to "hello"."""
    return LOCAL_GREETING if source == LOCAL else scenarios.greeting(FAKES[source])


def schema_of(source: str) -> dict[str, Any]:
    """The schema of the scenario `schema`; the embedded model, whose words are few, has a choice of words."""
    if source != LOCAL:
        return scenarios.SCHEMA
    name = {"type": "string", "enum": ["Ada", "Grace"]}
    return {**scenarios.SCHEMA, "properties": {"name": name, "age": {"type": "integer", "enum": [36, 37]}}}


def table() -> str:
    """The Markdown table: a row for each client and source, a column for each scenario."""
    lines = [
        f"| SDK | answered by | {' | '.join(SCENARIO_NAMES[scenario] for scenario in SCENARIOS)} |",
        "|---|---|" + "---|" * len(SCENARIOS),
    ]
    for client in CLIENTS:
        for source in SOURCES:
            told = " | ".join(_told(client, source, scenario) for scenario in SCENARIOS)
            lines.append(f"| {CLIENT_NAMES[client]} | {SOURCE_NAMES[source]} | {told} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, write it into a page, or tell by the exit code whether a page has drifted."""
    return run("tests.sdk.matrix", "dialects", table(), argv, __doc__)


def _shown(client: str, scenario: str) -> Iterator[tuple[str, str]]:
    for source in SOURCES:
        for mode in MODES:
            if EXPECTED[client, source, mode, scenario].shown:
                yield source, mode


def _told(client: str, source: str, scenario: str) -> str:
    """One square of the page: both modes in a word, or each in its own where they differ."""
    whole, stream = (_word(EXPECTED[client, source, mode, scenario]) for mode in MODES)
    return whole if whole == stream else f"whole: {whole}; streamed: {stream}"


def _word(cell: Cell) -> str:
    if cell.shown:
        return f"yes: {cell.reason}" if cell.reason else "yes"
    return f"no: {cell.reason}"


if __name__ == "__main__":
    raise SystemExit(main())
