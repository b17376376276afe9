"""JSON Schema (draft 2020-12 unless a schema says otherwise), compiled once; nothing is ever fetched."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson


def violation(schema: Any, value: Any) -> str | None:
    """The first violation of `schema` by `value`, or None when it fits. An empty schema fits everything."""
    if not schema:
        return None
    error = next(iter(_validator(orjson.dumps(schema)).iter_errors(value)), None)
    return None if error is None else str(error.message)[:200]


def defect(schema: Any) -> str | None:
    """Why `schema` is not a usable JSON schema, or None when it is one."""
    try:
        _validator(orjson.dumps(schema))
    except (ValueError, TypeError) as error:
        return str(error).partition("\n")[0][:200]
    return None


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Any:
    return jsonschema_rs.validator_for(orjson.loads(schema), retriever=_no_retrieval)


def _no_retrieval(uri: str) -> Any:
    """A schema comes from a client: following its references would let it reach into the network and the disk."""
    raise ValueError(f"the schema refers to {uri}, and references outside a schema are not followed")
