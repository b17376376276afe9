"""Models as Ollama shows them: tags, show, ps, version (https://docs.ollama.com/api/tags).

Made of the entries of `GET /v1/models`. What Ollama knows of files (sizes, quantisation) is empty here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from llmproxy.core.types import JsonObject
from llmproxy.dialects.ollama_stream import created_at

_WORDS = {"tools": "tools", "vision": "vision", "reasoning": "thinking", "audio": "audio"}
# Where nothing is known of the capabilities, the name stands for several models, and each request goes to one that
# has what it needs.
_ANY = ("completion", "tools", "vision", "thinking")
_FAR = "2100-01-01T00:00:00Z"


def tags(entries: Iterable[JsonObject]) -> JsonObject:
    """`GET /api/tags`: every model and every pool."""
    return {"models": [_entry(entry) for entry in entries]}


def running(entries: Iterable[JsonObject]) -> JsonObject:
    """`GET /api/ps`: the local models that are loaded; no time is set at which they will go."""
    return {"models": [_running(entry) for entry in entries if _about(entry).get("state") == "loaded"]}


def show(entry: JsonObject) -> JsonObject:
    """`POST /api/show` of one model."""
    about = {"general.architecture": "llmproxy", "general.basename": entry["id"]}
    if entry.get("context_length"):
        about["llmproxy.context_length"] = entry["context_length"]
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "license": "",
        "details": _details(entry),
        "model_info": about,
        "capabilities": _capabilities(entry),
        "modified_at": created_at(entry.get("created")),
    }


def version(number: str) -> JsonObject:
    """`GET /api/version`."""
    return {"version": number}


def _about(entry: JsonObject) -> JsonObject:
    about = entry.get("llmproxy")
    return about if isinstance(about, dict) else {}


def _capabilities(entry: JsonObject) -> list[str]:
    known = _about(entry).get("capabilities")
    if known is None:
        return list(_ANY)
    if "embeddings" in known:
        return ["embedding"]
    return ["completion", *(word for name, word in _WORDS.items() if name in known)]


def _details(entry: JsonObject) -> JsonObject:
    family = str(entry.get("owned_by") or "")
    return {
        "parent_model": "",
        "format": "",
        "family": family,
        "families": [family],
        "parameter_size": "",
        "quantization_level": "",
    }


def _entry(entry: JsonObject) -> JsonObject:
    return {
        "name": entry["id"],
        "model": entry["id"],
        "modified_at": created_at(entry.get("created")),
        "size": 0,
        "digest": hashlib.sha256(entry["id"].encode()).hexdigest(),
        "details": _details(entry),
    }


def _running(entry: JsonObject) -> JsonObject:
    memory_bytes = int(_about(entry).get("memory_mb") or 0) * 1024 * 1024
    made = {**_entry(entry), "size": memory_bytes, "expires_at": _FAR}
    del made["modified_at"]
    on_gpu = any("cpu" not in str(device) for device in _about(entry).get("devices") or ())
    made["size_vram"] = memory_bytes if on_gpu else 0
    return {**made, "context_length": entry["context_length"]} if entry.get("context_length") else made
