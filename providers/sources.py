"""A provider's settings → the source that speaks its wire format."""

from __future__ import annotations

import aiohttp

from providers import openai_compatible, translated
from providers.catalog import Settings
from providers.openai_compatible import OpenAiCompatible
from providers.translated import WIRES, Translated

Provider = OpenAiCompatible | Translated


def source_of(settings: Settings, session: aiohttp.ClientSession) -> Provider:
    """The source of one provider; it is called over `session`."""
    return Translated(settings, session) if settings.protocol in WIRES else OpenAiCompatible(settings, session)


def headers_of(settings: Settings) -> dict[str, str]:
    """What a request for the provider's list of models carries: its first key, as its wire format shows it."""
    if settings.protocol in WIRES:
        return translated.headers_of(settings, 0)
    return openai_compatible.headers_of(settings, 0)
