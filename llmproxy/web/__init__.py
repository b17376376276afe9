"""aiohttp handlers, middleware and error envelopes."""
