"""What is wrong with a setup, and how to mend it. Pure: errors and facts in, findings out."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import NamedTuple

from llmproxy.core.env import MissingVariable
from llmproxy.core.errors import (
    BadReply,
    ClientError,
    ConnectFailed,
    ConnectionLost,
    LlmproxyError,
    Refused,
    TimedOut,
)
from llmproxy.core.text import scrub
from llmproxy.core.types import JsonObject
from providers import catalog as provider_catalog
from providers.catalog import Settings

_VARIABLE = re.compile(r"\bset ([A-Z][A-Z0-9_]*)\b")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: where in the configuration, what, and what to do. Not `fatal`: it works all the same."""

    where: str
    problem: str
    mend: str
    fatal: bool = True

    def body(self) -> JsonObject:
        """As JSON."""
        return {"where": self.where, "problem": self.problem, "mend": self.mend, "fatal": self.fatal}

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}. {self.mend}"


class Remedy(NamedTuple):
    """What happened, in words for a person, and what to do about it."""

    problem: str
    mend: str


def of_error(error: Exception, settings: Settings, *, credential: int = 0) -> Finding:
    """What the failure of a provider means."""
    match error:
        case Refused():
            remedy = _refused(error, settings, credential)
        case ConnectFailed():
            remedy = _unreachable(error.message, settings)
        case TimeoutError() | TimedOut():
            remedy = Remedy(
                f"{_host(settings)} did not answer in time",
                f"Try again later; if it never answers, look at firewall and proxy.{_proxy_hint(settings)}",
            )
        case ConnectionLost():
            remedy = Remedy(
                f"{_host(settings)} broke the connection off: {error.message}",
                f"Check http or https in {_field(settings)}, then firewall and proxy.{_proxy_hint(settings)}",
            )
        case BadReply():
            remedy = _odd(error, settings)
        case LlmproxyError():
            remedy = Remedy(error.message, "See the log of `llmproxy serve --log-level DEBUG`.")
        case _:
            remedy = Remedy(f"{type(error).__name__}: {error}", f"Check {_field(settings)}.")
    problem, mend = (_without_keys(text, settings) for text in remedy)
    return Finding(f"providers.{settings.name}", problem, mend)


def of_missing(name: str, reason: str) -> Finding:
    """Why a provider or a local model cannot be used, as `app.read_parts` tells it."""
    if name == "local" or name.startswith("local/"):
        problem = f"{name} is not here" if reason.startswith("run: ") else f"{name}: {reason}"
        return Finding("local.models", problem, _local_mend(name, reason))
    entry = provider_catalog.catalog().get(name)
    if found := _VARIABLE.search(reason):
        where = f" A key is made at {entry.key_url}." if entry and entry.key_url else ""
        mend = f"Run: export {found[1]}=…, or give the key with `llmproxy setup`.{where}"
        return Finding(f"providers.{name}", f"the environment variable {found[1]} is not set", mend)
    return Finding(f"providers.{name}", reason, "Change that field, or run `llmproxy setup`.")


def of_empty_list(settings: Settings) -> Finding:
    """A list without a model."""
    mend = "Load or pull a model in that server, then try again."
    if not settings.on_this_machine:
        mend = f"The key may have no access to any model: see {_key_page(settings) or 'its website'}."
    return Finding(f"providers.{settings.name}", "its list of models is empty", mend)


def _refused(error: Refused, settings: Settings, credential: int) -> Remedy:
    said, page = error.message, _key_page(settings)
    at = f" at {page}" if page else ""
    key = _key(settings, credential)
    if 300 <= (error.http_status or 0) < 400:
        mend = f"Check http or https, and the rest of {_field(settings)}."
        return Remedy(f"{_host(settings)} sends elsewhere ({error.http_status})", mend)
    match error.kind:
        case "auth":
            mend = f"Make a new key{at}, and give it with `llmproxy setup`{_or_variable(settings, credential)}."
            return Remedy(f"{key} is not accepted ({error.http_status}: {said})", mend)
        case "credit":
            return Remedy(
                f"there is no credit left ({error.http_status}: {said})",
                f"Wait until the free quota renews, or add credit{at}; `llmproxy setup` can switch it off meanwhile.",
            )
        case "forbidden":
            return Remedy(
                f"{key} may not do this ({error.http_status}: {said})",
                f"Look at the rights of the key and at terms to accept{at}.",
            )
        case "rate_limit":
            wait = f" in {error.retry_after_s:.0f} s" if error.retry_after_s else " later"
            return Remedy(f"its limit is used up for now ({said})", f"The key works. Try again{wait}.")
        case "not_found":
            return _not_there(error, settings)
        case "server":
            return Remedy(f"it is in trouble ({error.http_status}: {said})", "Nothing to do here: try again later.")
        case _:
            return Remedy(f"it refused ({error.http_status}: {said})", f"Check {_field(settings)} and the model.")


def _not_there(error: Refused, settings: Settings) -> Remedy:
    entry = provider_catalog.catalog().get(settings.name)
    if error.http_status == 410 or (entry is not None and entry.retired):
        note = f" {entry.free_note}" if entry is not None and entry.retired else ""
        return Remedy(f"it was shut down ({error.http_status}).{note}", f"Remove providers.{settings.name}.")
    if error.upstream_code == "model_not_found":
        return Remedy(error.message, "The model may have been retired: choose another one of its list.")
    return Remedy(
        f"there is nothing at {settings.models_url} ({error.http_status})",
        f"Check {_field(settings)}: {_usual_end(settings)}",
    )


def _odd(error: BadReply, settings: Settings) -> Remedy:
    if error.outcome in ("not_json", "bad_http", "bad_encoding"):
        return Remedy(
            f"{_host(settings)} answers with something that is no JSON, such as a web page",
            f"Check {_field(settings)}: {_usual_end(settings)} A proxy or a sign-in page in between does this too.",
        )
    if "list" in error.message:
        return Remedy(error.message, f"Set providers.{settings.name}.models_url to where its list of models is.")
    return Remedy(f"its answer is none: {error.message}", "Try again; if it stays so, choose another model of it.")


def _unreachable(text: str, settings: Settings) -> Remedy:
    """`text` begins with the name of the library's error (`providers.http.mapped`)."""
    host, field = _host(settings), _field(settings)
    kind = text.partition(":")[0]
    if "Proxy" in kind:
        return Remedy(f"the proxy does not let it through to {host}: {text}", f"Check it.{_proxy_hint(settings)}")
    if "Certificate" in kind or "SSL" in kind:
        return Remedy(
            f"no secure connection to {host}: {text}",
            f"Check the clock of this machine and https in {field}; behind a company's proxy, set SSL_CERT_FILE to "
            "its certificates.",
        )
    if "DNS" in kind or "Name or service not known" in text or "getaddrinfo" in text:
        return Remedy(f"there is no host {host}", f"Check {field}, and that this machine has a network.")
    if "Timeout" in kind:
        return Remedy(f"no connection to {host} in time", f"Look at firewall and proxy.{_proxy_hint(settings)}")
    if settings.on_this_machine:
        return Remedy(f"nothing listens at {settings.base_url}", f"Start that server, or change {field}.")
    return Remedy(f"no connection to {host}: {text}", f"Check {field}, firewall and proxy.{_proxy_hint(settings)}")


def _local_mend(name: str, reason: str) -> str:
    if reason.startswith("run: "):
        return f"{reason[0].upper()}{reason[1:]}"
    if "local extra" in reason:
        return "Run: pip install 'llmproxy[local]', or remove local.models."
    return f"Correct {name.removeprefix('local/')} in local.models, or remove it there."


def _without_keys(text: str, settings: Settings) -> str:
    """Some providers print the key back that they refuse."""
    for secret in settings.keys:
        with contextlib.suppress(MissingVariable):
            text = text.replace(secret.reveal(), secret.masked)
    return scrub(text)


def _field(settings: Settings) -> str:
    return f"providers.{settings.name}.base_url ({settings.base_url})"


def _host(settings: Settings) -> str:
    return settings.base_url.partition("://")[2].partition("/")[0].rpartition("@")[2] or settings.base_url


def _key(settings: Settings, credential: int) -> str:
    if credential >= len(settings.keys):
        return "a call without a key"
    return f"the key {settings.keys[credential].masked}"


def _or_variable(settings: Settings, credential: int) -> str:
    shown = settings.keys[credential].masked if credential < len(settings.keys) else ""
    return f", or set {shown[2:-1]}" if shown.startswith("${") else ""


def _key_page(settings: Settings) -> str | None:
    entry = provider_catalog.catalog().get(settings.name)
    return entry.key_url if entry is not None else None


def _usual_end(settings: Settings) -> str:
    return "the address in front of /chat/completions." + (
        "" if settings.base_url.endswith("/v1") else " It usually ends in /v1."
    )


def _proxy_hint(settings: Settings) -> str:
    if settings.proxy:
        return f" The proxy is providers.{settings.name}.proxy."
    return " The proxy is that of HTTPS_PROXY or HTTP_PROXY, if they are set."


def stops_all(error: LlmproxyError) -> bool:
    """Whether another model of the same provider would fail in the same way."""
    if isinstance(error, Refused):
        return error.kind in ("auth", "credit")
    return not isinstance(error, BadReply | ClientError)
