"""Upstream providers over HTTP; URLs, quirks and limits are data in catalog.json."""
