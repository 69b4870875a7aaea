"""Models. Nothing in here knows about files, audio or text: features in, log-probabilities out."""

from asr.model.seams import Memory, Network, State
from asr.model.transformer import Transformer

__all__ = ["Memory", "Network", "State", "Transformer"]
