"""Speech recognition from end to end: audio, features, model, training, decoding, scoring.

>>> import asr
>>> recognizer = asr.Recognizer()                      # the model that ships, or Recognizer("runs/mine")
>>> recognizer.transcribe("speech.wav").text           # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr.errors import AsrError
    from asr.model_folder import Bundle, load_model
    from asr.transcription.recognizer import Recognizer
    from asr.transcription.transcript import Segment, Transcript

__version__ = "0.1.0"
__all__ = ["AsrError", "Bundle", "Recognizer", "Segment", "Transcript", "__version__", "load_model"]

_HOME = {
    "AsrError": "asr.errors",
    "Bundle": "asr.model_folder",
    "Recognizer": "asr.transcription.recognizer",
    "Segment": "asr.transcription.transcript",
    "Transcript": "asr.transcription.transcript",
    "load_model": "asr.model_folder",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `asr --help` never waits for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'asr' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
