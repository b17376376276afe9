"""A provider's settings → the source that speaks its wire format."""

from __future__ import annotations

import aiohttp

from providers.catalog import Settings
from providers.openai_compatible import OpenAiCompatible
from providers.translated import WIRES, Translated

Provider = OpenAiCompatible | Translated


def source_of(settings: Settings, session: aiohttp.ClientSession) -> Provider:
    """The source of one provider; it is called over `session`."""
    return Translated(settings, session) if settings.protocol in WIRES else OpenAiCompatible(settings, session)
