"""Guaranteed structure: what a request forces its answer to be, as a grammar, and the masks that keep to it."""
