"""Prints the table of all options for docs/configuration.md; run as `python -m llmproxy.core.config_table`.

A meaning is the `description` of a field in `core/config.py`, else its line in `MEANINGS`; a field with neither fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmproxy.core.config import Config
from llmproxy.core.page_table import run

MEANINGS: dict[str, str] = {
    "server.host": "address to listen on; beyond loopback `server.api_keys` must hold a key",
    "server.port": "port to listen on; 0 takes a free one",
    "server.log_level": "`WARNING` and `ERROR` also leave out the line of each request",
    "server.api_keys": "keys that clients may send; empty asks for none",
    "server.body_limit_mb": "largest request body, in MiB",
    "providers.*.base_url": "address in front of `/chat/completions`; may hold `${VAR}`",
    "providers.*.api_key": "a key, or `${VAR}`; without one a known provider's usual variable is read",
    "providers.*.api_keys": "more keys; each is a credential of its own",
    "providers.*.protocol": "what the provider speaks; only `openai` can be used",
    "providers.*.model_filter": "ids or globs of the models to offer; `null` offers all, listed or not",
    "providers.*.models_url": "where its list of models is; `{base_url}/models` by default",
    "providers.*.models_id_field": "field of a listed model that holds its id; `id` by default",
    "providers.*.models_keep_task": "keep only listed models of this task",
    "providers.*.headers": "headers to add to each request; values may hold `${VAR}`",
    "providers.*.proxy": "HTTP proxy for this provider; may hold `${VAR}`",
    "providers.*.enabled": "`false` keeps the entry and does not use it",
    "providers.*.expose_to_virtual_models": "`false` keeps its models out of pools",
    "local.models": "`tiny`, names of the catalogue, folders, or hub ids; empty for none",
    "local.device": "`auto`, `cpu`, `cuda:1`, `mps`: any device of torch, or several with commas between them",
    "local.catalog": "a file beside the configuration that replaces the catalogue of the package",
    "local.engine": "`process` runs each model in a process of its own; `ray` is refused",
    "aliases": "name → any name that can be sent, an alias too",
    "pools.*.where.capabilities": "drops models known to lack one; asks those known to have all first",
    "pools.*.where.free": "`true`: free or local ones; `false`: only the others",
    "pools.*.where.local": "`true`: models of this machine; `false`: only the others",
    "pools.*.where.providers": "only these; `local` counts as one",
    "pools.*.where.reasoning": "only models of this tier",
    "pools.*.where.min_context": "drops models whose window is known to have fewer tokens",
    "pools.*.order": "who is asked first",
    "believed_free": "globs of models to count as free",
    "cost_observed_free_tier": "globs of models that are never counted as free, whatever else says so",
    "model_reasoning": "model or glob → tier",
    "model_capabilities": "model or glob → capabilities; for a provider's model they replace what is known",
    "model_context": "model or glob → window in tokens",
    "model_rates": "model or glob → what a million tokens (of prompt, of answer) cost in `neurons`, `credits`, `usd`",
    "free_limits.*.requests_per_second": "free requests per second",
    "free_limits.*.requests_per_minute": "likewise",
    "free_limits.*.requests_per_hour": "likewise",
    "free_limits.*.requests_per_day": "likewise",
    "free_limits.*.requests_per_week": "likewise",
    "free_limits.*.requests_per_month": "likewise",
    "free_limits.*.tokens_per_minute": "likewise",
    "free_limits.*.tokens_per_hour": "likewise",
    "free_limits.*.tokens_per_day": "likewise",
    "free_limits.*.tokens_per_week": "likewise",
    "free_limits.*.tokens_per_month": "likewise",
    "free_limits.*.prompt_tokens_per_minute": "likewise",
    "free_limits.*.prompt_tokens_per_hour": "likewise",
    "free_limits.*.prompt_tokens_per_day": "likewise",
    "free_limits.*.completion_tokens_per_minute": "likewise",
    "free_limits.*.completion_tokens_per_hour": "likewise",
    "free_limits.*.completion_tokens_per_day": "likewise",
    "free_limits.*.audio_seconds_per_hour": "likewise",
    "free_limits.*.audio_seconds_per_day": "likewise",
    "free_limits.*.images_per_minute": "likewise",
    "free_limits.*.images_per_day": "likewise",
    "free_limits.*.neurons_per_day": "likewise",
    "free_limits.*.neurons_per_month": "likewise",
    "free_limits.*.credits_per_day": "likewise",
    "free_limits.*.credits_per_week": "likewise",
    "free_limits.*.credits_per_month": "likewise",
    "free_limits.*.usd_per_day": "likewise",
    "free_limits.*.usd_per_week": "likewise",
    "free_limits.*.usd_per_month": "likewise",
    "free_limits.*.requests_once": "a credit that does not come back",
    "free_limits.*.tokens_once": "likewise",
    "free_limits.*.credits_once": "likewise",
    "free_limits.*.usd_once": "likewise",
    "free_limits.*.max_request_tokens": "no single request may have more, prompt and output together",
    "free_limits.*.max_prompt_tokens": "likewise, the prompt alone",
    "free_limits.*.max_completion_tokens": "likewise, the output alone",
    "free_limits.*.concurrency": "requests at the same time",
    "free_limits.*.windows": "windows of other lengths: `unit`, `amount`, `seconds`",
    "free_limits.*.reset": "when days and longer windows begin anew: a time zone; or `rolling`, `minute`, `bucket`",
    "free_limits.*.shared": "one limit for all models of the glob together",
    "routing.fallbacks": "`false` asks one candidate only",
    "routing.max_attempts": "candidates to ask for one request, at most",
    "routing.delivery": "`whole` judges a stream before its first byte; `x-llmproxy-delivery` says it for one request",
    "state.url": "`sqlite` keeps what was counted and learned in `state.sqlite3` beside the file; `memory` forgets it",
    "scrape.on_startup": "also refresh in the background at the start",
    "admin.enabled": "read, without effect",
    "admin.token": "read, without effect",
}
_BOUNDS = {"minimum": "≥ {:g}", "exclusiveMinimum": "> {:g}", "maximum": "≤ {:g}"}


def options(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path, its JSON schema) of each option, in the order of the file; `*` stands for a name of the user's own."""

    def walk(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for name, field in section["properties"].items():
            below = field if "$ref" in field else field.get("additionalProperties", {})
            if "$ref" in below:
                inner = schema["$defs"][below["$ref"].rpartition("/")[2]]
                yield from walk(inner, f"{prefix}{name}." if below is field else f"{prefix}{name}.*.")
            else:
                yield prefix + name, field

    yield from walk(schema, "")


def type_cell(field: Mapping[str, Any]) -> str:
    """The type of an option in words."""
    if "$ref" in field:
        return "object"
    if "anyOf" in field:
        return " or ".join(map(type_cell, field["anyOf"]))
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "prefixItems" in field:
        return f"list of {len(field['prefixItems'])}: {type_cell(field['prefixItems'][0])}"
    if field["type"] == "array":
        return f"list of {type_cell(field['items'])}"
    if field["type"] == "object":
        return f"object of {type_cell(field['additionalProperties'])}"
    return ", ".join([field["type"], *(text.format(field[key]) for key, text in _BOUNDS.items() if key in field)])


def table(schema: Mapping[str, Any], meanings: Mapping[str, str]) -> str:
    """The Markdown table, one row an option; raises `ValueError` for a missing meaning or one of no option."""
    found = dict(options(schema))
    known = {**meanings, **{path: field["description"] for path, field in found.items() if "description" in field}}
    if problem := sorted(found.keys() ^ known.keys()):
        raise ValueError(f"an option without a meaning, or a meaning without an option: {', '.join(problem)}")
    lines = ["| option | type | default | meaning |", "|---|---|---|---|"]
    for path, field in found.items():
        default = json.dumps(field["default"], ensure_ascii=False)
        lines.append(f"| `{path}` | {type_cell(field)} | `{default}` | {known[path]} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, write it into a page, or tell by the exit code whether a page has drifted."""
    return run("llmproxy.core.config_table", "options", table(Config.model_json_schema(), MEANINGS), argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
