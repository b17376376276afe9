"""One file a source, each with a pure `parse(bytes) -> list[Evidence]` and its `SOURCE`; the list is `registry.py`."""
