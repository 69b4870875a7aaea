"""Models. Nothing in here knows about files, audio or text: features in, log-probabilities out."""

from asr.model.encoder_decoder import Transformer
from asr.model.interfaces import Memory, Network, State

__all__ = ["Memory", "Network", "State", "Transformer"]
