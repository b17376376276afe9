"""Reads what providers and lists say about free models, keeps it as evidence, and decides what counts."""
