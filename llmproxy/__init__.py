"""llmproxy: one endpoint over your own torch models and every provider's free tier."""

__version__ = "0.1.0"
