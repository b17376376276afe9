"""Which engine runs a Whisper: CTranslate2 where it can, transformers otherwise. In worker processes only."""

from __future__ import annotations

import logging

from backends.base import Settings, SpeechHandler
from backends.devices import device_of
from backends.weights import is_ctranslate

_log = logging.getLogger(__name__)


def transcriber(settings: Settings) -> SpeechHandler:
    """The handler of a Whisper. A folder in the form of CTranslate2 runs on nothing else, and neither does a
    quantization; any other runs on transformers where CTranslate2 is not installed, or cannot run it.

    Raises whatever keeps the model from loading.
    """
    must = is_ctranslate(settings.folder) or settings.quantization is not None
    if must or device_of(settings).type in ("cpu", "cuda"):
        try:
            from backends.speech.ctranslate import CTranslateWhisper

            return CTranslateWhisper(settings)
        except ImportError:
            if must:
                raise
        except Exception as error:  # a model that cannot be converted, a GPU without the libraries, a full disk, …
            if must:
                raise
            _log.warning("%s runs on transformers: %s: %s", settings.name, type(error).__name__, error)
    from backends.speech.whisper import WhisperModel

    return WhisperModel(settings)
