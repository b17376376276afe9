"""A provider's own list of models becomes evidence, whatever its shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scrapers.base import Evidence, NotUnderstood, Rank, Source
from scrapers.sources.provider_lists import PARTIAL, source_for

FOLDER = Path(__file__).parents[2] / "data/scrape/provider_lists"


def raw(name: str) -> bytes:
    return (FOLDER / f"{name}.json").read_bytes()


def source(**options: Any) -> Source:
    return source_for("maker", "https://api.example.test/v1/models", **options)


def facts(body: bytes, **options: Any) -> dict[str, dict[str, Any]]:
    """By model, what is said of it; `exists` where it is True is left out."""
    found: dict[str, dict[str, Any]] = {}
    for claim in source(**options).parse(body):
        mine = found.setdefault(claim.model, {})
        if claim.field != "exists" or claim.value is not True:
            mine[claim.field.removeprefix("capability.")] = claim.value
    return found


def test_groq() -> None:
    """Windows and longest answers are told of models that answer; what is not active cannot be asked."""
    assert facts(raw("groq")) == {
        "swift-70b": {"context": 131072, "max_output": 32768},
        "whisper-large": {"chat": False, "context": 448},
        "gone-8b": {"exists": False, "context": 8192, "max_output": 8192},
    }


def test_mistral() -> None:
    """Flags are believed either way, aliases are ids, and of two entries with one id the first counts."""
    assert facts(raw("mistral")) == {
        "middle-2601": {"chat": True, "context": 131072, "tools": True, "vision": False, "audio": False},
        "middle-latest": {"chat": True, "context": 131072, "tools": True, "vision": False, "audio": False},
        "old-7b": {"chat": True, "context": 32768, "tools": False},
        "words-embed": {"chat": False, "context": 8192},
        "hears-2601": {"chat": True, "context": 32768, "audio": True},
    }


def test_an_announced_end() -> None:
    """A model that is to be retired is there until then."""
    ends = {claim.model: claim.until_s for claim in source().parse(raw("mistral")) if claim.until_s is not None}
    assert ends == {"old-7b": 1769860800.0}


def test_hugging_face() -> None:
    """What holds whichever live backend answers: flags and prices that all agree on who tell, the narrowest window."""
    assert facts(raw("huggingface")) == {
        "maker/agreed": {
            "chat": True, "context": 163840, "price.prompt": 0.269, "price.completion": 0.4, "tools": True,
            "json": False, "vision": True, "audio": False,
        },
        "maker/mixed": {"chat": True, "context": 32768, "json": True, "vision": False, "audio": False},
        "maker/soon": {"exists": False, "chat": True, "vision": False, "audio": False},
    }  # fmt: skip


def test_gemini() -> None:
    """Methods tell who chats, but a name of another job counts more; `thinking` that is absent is unknown."""
    assert facts(raw("gemini"), id_field="name") == {
        "flash": {"chat": True, "context": 1048576, "max_output": 65536, "reasoning": True},
        "flash-preview-tts": {"chat": False, "context": 8192},
        "flash-image": {"context": 32768, "max_output": 32768},
        "vectors-embedding-001": {"chat": False, "context": 2048, "embeddings": True},
        "talk-native-audio": {"chat": False, "context": 131072, "reasoning": True},
    }


def test_cohere() -> None:
    """Features that are listed are there, all others unknown; endpoints tell what a model is for."""
    assert facts(raw("cohere"), id_field="name") == {
        "commander": {"chat": True, "context": 128000, "tools": True, "json": True, "reasoning": True},
        "expander": {"chat": True, "context": 8192},
        "vectors": {"chat": False, "context": 512, "embeddings": True},
        "vectors-image": {"chat": False},
        "sorter": {"chat": False, "context": 4096, "rerank": True},
        "hearer": {"chat": False, "context": 32768, "speech": True},
    }


def test_github() -> None:
    """Both shapes of its catalogue are read; `reasoning` among its tags is praise, not a capability."""
    assert facts(raw("github_old")) == {
        "maker/Seer-1": {"chat": True, "vision": True, "audio": False},
        "maker/Vectors": {"chat": False, "vision": False, "audio": False, "embeddings": True},
    }
    assert facts(raw("github_new")) == {
        "maker/seer-2": {
            "chat": True, "context": 131072, "max_output": 16384, "tools": True, "vision": False, "audio": False,
        },
    }  # fmt: skip


def test_local_servers() -> None:
    """llama.cpp tells the window it runs with, not the one of the training; Ollama its tags."""
    assert facts(raw("llamacpp")) == {"maker/small-GGUF": {"context": 65536}}
    assert facts(raw("ollama")) == {"small:latest": {}, "thinks:8b": {"tools": True, "reasoning": True}}


def test_cloudflare() -> None:
    """Only the wanted task is kept, and properties are text there."""
    assert facts(raw("cloudflare"), id_field="name", keep_task="Text Generation") == {
        "@cf/maker/chatter": {"context": 24000, "tools": True}
    }


def test_ids_alone() -> None:
    """Where there is nothing but ids, a name of another job says that the model does not chat, others say nothing."""
    assert facts(raw("ids_only")) == {
        "maker/thinker-70b": {},
        "maker/prompt-guard-8b": {"chat": False},
        "maker/image-1": {"chat": False},
    }


@pytest.mark.parametrize(
    ("listed", "suffix", "free"),
    [
        ({"id": "m:free"}, ":free", "quota"),
        ({"id": "m:free", "pricing": {"prompt": "0", "completion": "0"}}, ":free", "quota"),
        ({"id": "m:free", "pricing": {"prompt": "0.000001", "completion": "0"}}, ":free", None),
        ({"id": "m", "pricing": {"prompt": "0.000001", "completion": "0"}}, ":free", "none"),
        ({"id": "m", "pricing": {"prompt": "0", "completion": "0"}}, ":free", None),
        ({"id": "m", "pricing": {"prompt": "-1", "completion": "-1"}}, ":free", None),
        ({"id": "m"}, ":free", None),
        ({"id": "m:free"}, None, None),
        ({"id": "m", "pricing": {"input": 0.3, "output": 1.2}}, None, None),
    ],
)
def test_who_is_free(listed: dict[str, Any], suffix: str | None, free: str | None) -> None:
    """Only where a suffix stands for it: a price may be paid from a free budget, and zero may mean anything."""
    assert facts(json.dumps([listed]).encode(), free_suffix=suffix)[listed["id"]].get("free") == free


def test_pages() -> None:
    """A list that has more pages says so with every model, so that nobody is taken to have left."""

    def notes(body: bytes) -> set[str]:
        return {claim.note for claim in source().parse(body) if claim.field == "exists"}

    assert notes(raw("gemini")) == {PARTIAL}
    assert notes(b'{"data": [{"id": "a"}], "has_more": true}') == {PARTIAL}
    assert notes(b'{"data": [{"id": "a"}, {}], "has_more": false}') == {PARTIAL}
    assert notes(b'{"data": [{"id": "a"}], "has_more": false}') == {""}


def test_saved_replies() -> None:
    """UTF-16 and a line of a log before the reply are accidents of saving it."""
    whole = source().parse(raw("groq"))
    assert source().parse(raw("groq").decode().encode("utf-16")) == whole
    noisy = "[dotenv@17.2.3] injecting env (15) from .env -- tip: ⚙️  { debug: true }\n".encode() + raw("groq")
    assert source().parse(noisy) == whole
    assert source().parse(noisy.decode().encode("utf-16")) == whole


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        (b"", "not JSON"),
        (b"<html>\n<head>\n<script>x</script>\n", "not JSON"),
        (raw("groq")[:-20], "not JSON"),
        (b'{"error": {"message": "Invalid API key"}}', "no list of models"),
        (b'{"data": []}', "names no model"),
        (b'{"data": [{}, {"id": ""}, 7, {"id": "a"}]}', "3 entries without an id"),
        (b"\xff\xfe\x00", "not JSON"),
    ],
)
def test_what_is_no_list(body: bytes, missing: str) -> None:
    """Anything else is refused, with the reason; a list of which most has changed its form as well."""
    with pytest.raises(NotUnderstood, match=missing):
        source().parse(body)


def test_source() -> None:
    """Each is the provider's own interface, whole, and called after it."""
    made = source_for("groq", "https://api.groq.com/openai/v1/models")
    assert (made.name, made.provider, made.rank, made.complete) == ("groq_api", "groq", Rank.API, True)
    first = made.read(raw("groq"), seen_at_s=5.0)[0]
    assert isinstance(first, Evidence)
    assert (first.source, first.url, first.seen_at_s) == ("groq_api", "https://api.groq.com/openai/v1/models", 5.0)
