"""Findings into `providers/catalog.json`, for those who keep the catalogue: `llmproxy scrape --write-catalog`.

Only what differs is touched: globs and what people wrote of them stay, a limit of a later day stays, and a file of
which nothing changed is written byte for byte as it was.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmproxy.core.names import matches_id
from llmproxy.core.types import CAPABILITIES, Model
from llmproxy.routing.findings import Finding, Findings

_WIDTH = 120
_NOT_AMOUNTS = frozenset({"models", "as_of", "source"})
# Objects that stand on one line where they fit, and those inside them.
_ON_ONE_LINE = frozenset({"rate_headers", "rates"})


def write(path: Path, findings: Findings) -> list[str]:
    """Update the file; the providers whose entry changed. Raises `OSError` and `ValueError` and then writes nothing."""
    before = json.loads(path.read_text("utf-8"))
    after = updated(before, findings)
    changed = [name for name in after if after[name] != before[name]]
    if changed:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text_of(after))
        os.chmod(temporary, path.stat().st_mode)
        os.replace(temporary, path)
    return changed


def updated(catalog: Mapping[str, Any], findings: Findings) -> dict[str, Any]:
    """The catalogue with what was found of the free models of each provider."""
    after: dict[str, Any] = copy.deepcopy(dict(catalog))
    for provider, entry in after.items():
        known = _known(provider, findings)
        gone = {model_id for model_id, finding in known.items() if finding.gone}
        free = {model_id: finding for model_id, finding in known.items() if _is_free(provider, model_id, findings)}
        _free_models(entry, sorted(free.keys() - gone), gone)
        _facts(entry, "capabilities", {one: _tags(finding) for one, finding in free.items() if finding.have}, gone)
        windows = {one: finding.context_tokens for one, finding in free.items() if finding.context_tokens}
        _facts(entry, "context", windows, gone)
        _free_limits(entry, provider, findings, gone)
    return after


def text_of(catalog: Mapping[str, Any]) -> str:
    """The file's own layout: an object a line, lists and the objects of quirks on one line where they fit."""
    return _text(catalog, 0, "") + "\n"


def _known(provider: str, findings: Findings) -> dict[str, Finding]:
    head = f"{provider}/"
    return {
        name.removeprefix(head): finding
        for name, finding in sorted(findings.models.items())
        if name.startswith(head) and not set(name) & set("*?[")
    }


def _is_free(provider: str, model_id: str, findings: Findings) -> bool:
    finding = findings.of(Model(provider, model_id))
    return finding.is_free is True and not finding.gone


def _tags(finding: Finding) -> list[str]:
    return [tag for tag in ("tools", "vision", "reasoning", "json") if tag in finding.have] + sorted(
        finding.have & CAPABILITIES - {"tools", "vision", "reasoning", "json"}
    )


def _free_models(entry: dict[str, Any], free: list[str], gone: set[str]) -> None:
    listed = [glob for glob in entry.get("free_models", ()) if glob not in gone]
    more = [model_id for model_id in free if not matches_id(listed, model_id)]
    if listed + more != list(entry.get("free_models", ())):
        entry["free_models"] = listed + more


def _facts(entry: dict[str, Any], field: str, found: Mapping[str, Any], gone: set[str]) -> None:
    before: dict[str, Any] = entry.get(field, {})
    exact = {one: value for one, value in before.items() if not set(one) & set("*?[") and one not in gone}
    globs = {one: value for one, value in before.items() if set(one) & set("*?[")}
    for model_id, value in sorted(found.items()):
        listed = {**exact, **globs}
        said = next((told for glob, told in listed.items() if matches_id((glob,), model_id)), None)
        same = sorted(said) == sorted(value) if isinstance(said, list) else said == value
        if not same:
            exact[model_id] = value
    # The order of the file stays where nothing is new.
    after = {one: {**exact, **globs}[one] for one in before if one in exact or one in globs}
    new = {one: value for one, value in exact.items() if one not in after}
    if new or after != before:
        entry[field] = {**new, **after}


def _free_limits(entry: dict[str, Any], provider: str, findings: Findings, gone: set[str]) -> None:
    rules = [copy.deepcopy(rule) for rule in entry.get("free_limits", ())]
    for rule in rules:
        if set(rule.get("models", ())) & gone:
            rule["models"] = [glob for glob in rule["models"] if glob not in gone]
    rules = [rule for rule in rules if rule.get("models", ["*"])]
    head = f"{provider}/"
    for name, found in sorted(findings.limits.items()):
        if not name.startswith(head) or name.removeprefix(head) in gone:
            continue
        glob = name.removeprefix(head)
        amounts = _plain(found.entry.model_dump(exclude_defaults=True))
        rule = next((one for one in rules if matches_id(one.get("models", ("*",)), glob)), None)
        if rule is not None and (
            all(rule.get(key) == value for key, value in amounts.items())
            or rule.get("as_of", "") > found.as_of[: len(rule.get("as_of", ""))]
        ):
            continue
        _replace_rule(rules, rule, glob, amounts, {"as_of": found.as_of[:7], "source": found.source})
    if rules != list(entry.get("free_limits", ())):
        entry["free_limits"] = rules


def _replace_rule(
    rules: list[dict[str, Any]],
    rule: dict[str, Any] | None,
    glob: str,
    amounts: dict[str, Any],
    origin: dict[str, Any],
) -> None:
    """Give `glob` limits of its own, in front of the rules that matched it before."""
    kept: dict[str, Any] = {}
    if rule is not None:
        if bool(rule.get("shared")) == bool(amounts.get("shared")):
            kept = {key: value for key, value in rule.items() if key not in _NOT_AMOUNTS}
        if glob in rule.get("models", ()):
            rule["models"] = [one for one in rule["models"] if one != glob]
            if not rule["models"]:
                rules.remove(rule)
    made = {**kept, **amounts, **origin}
    for other in rules:
        if {key: value for key, value in other.items() if key != "models"} == made and "*" not in other["models"]:
            other["models"].append(glob)
            return
    if set(glob) & set("*?["):
        rules.append({"models": [glob], **made})
    else:
        rules.insert(0, {"models": [glob], **made})


def _plain(amounts: dict[str, Any]) -> dict[str, Any]:
    return {
        key: int(value) if isinstance(value, float) and value.is_integer() else value for key, value in amounts.items()
    }


def _text(value: Any, depth: int, inside: str, before: int = 0) -> str:
    """`before`: characters that stand in front of the value in its line."""
    inner, outer = "  " * (depth + 1), "  " * depth
    flat = json.dumps(value, ensure_ascii=False)
    scalars = isinstance(value, list) and not any(isinstance(item, dict | list) for item in value)
    fits = before + len(flat) < _WIDTH  # and a comma
    if not isinstance(value, dict | list) or not value or (fits and (scalars or inside in _ON_ONE_LINE)):
        return flat
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + _text(item, depth + 1, inside, len(inner)) for item in value) + f"\n{outer}]"
    lines = []
    for key, item in value.items():
        below = key if key in _ON_ONE_LINE else inside
        head = f"{inner}{json.dumps(key, ensure_ascii=False)}: "
        lines.append(head + _text(item, depth + 1, below, len(head)))
    return "{\n" + ",\n".join(lines) + f"\n{outer}}}"
