"""The interactive setup: `llmproxy setup`, and what `llmproxy check` says about mending one. Begin with `run.py`."""
