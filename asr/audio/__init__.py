"""Audio: reading, level, segmentation, writing.

read, blocks             any file, bytes or open file to mono float32
duration, channels, sample_rate   of the same
from_array               the same for an array in memory
normalize_level          one level for models that were trained on one level
segments                 pieces of a long recording, cut in pauses
write                    wav, flac, ogg, opus
"""

from asr.audio.level import normalize_level, speech_level
from asr.audio.reading import Source, blocks, channels, duration, read, sample_rate
from asr.audio.samples import SAMPLE_RATE, from_array
from asr.audio.segmentation import segments
from asr.audio.writing import write

_PCM = (".wav", ".wave", ".w64", ".aiff", ".aif", ".aifc", ".au", ".caf", ".sph")
_CODED = (".flac", ".ogg", ".oga", ".opus", ".mp3")
_PYAV = (".m4a", ".mp4", ".m4v", ".mov", ".3gp", ".webm", ".mkv", ".mka", ".aac", ".wma", ".amr")
EXTENSIONS = _PCM + _CODED + _PYAV

__all__ = [
    "EXTENSIONS",
    "SAMPLE_RATE",
    "Source",
    "blocks",
    "channels",
    "duration",
    "from_array",
    "normalize_level",
    "read",
    "sample_rate",
    "segments",
    "speech_level",
    "write",
]
