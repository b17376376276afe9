"""Local engines: torch and transformers are imported here only, and only inside the worker process."""
