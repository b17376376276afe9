"""Measurements of llmproxy; each module says how to repeat its own."""
