"""Speech recognition from end to end: audio, features, model, training, decoding, scoring.

>>> import asr
>>> recognizer = asr.Recognizer()                      # the English model, or Recognizer("runs/mine")
>>> recognizer.transcribe("speech.wav").text           # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr.decoding.options import DecodingOptions
    from asr.decoding.stored_options import best_options, default_options
    from asr.errors import AsrError
    from asr.model_folder import Bundle, load_model
    from asr.transcription.inputs import Input
    from asr.transcription.recognizer import Recognizer
    from asr.transcription.transcript import Segment, StreamResult, Transcript

__version__ = "0.2.0"
__all__ = [
    "AsrError",
    "Bundle",
    "DecodingOptions",
    "Input",
    "Recognizer",
    "Segment",
    "StreamResult",
    "Transcript",
    "__version__",
    "best_options",
    "default_options",
    "load_model",
]

_MODULES = {
    "AsrError": "asr.errors",
    "Bundle": "asr.model_folder",
    "DecodingOptions": "asr.decoding.options",
    "Input": "asr.transcription.inputs",
    "Recognizer": "asr.transcription.recognizer",
    "Segment": "asr.transcription.transcript",
    "StreamResult": "asr.transcription.transcript",
    "Transcript": "asr.transcription.transcript",
    "best_options": "asr.decoding.stored_options",
    "default_options": "asr.decoding.stored_options",
    "load_model": "asr.model_folder",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that `asr --help` does not wait for torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'asr' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return list(__all__)
