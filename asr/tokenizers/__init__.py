"""Tokenizers: text to ids and back. One file per kind; each kind owns its special tokens."""

from asr.tokenizers.characters import BOS, EOS, PAD, UNK, Tokenizer, normalize_text

__all__ = ["BOS", "EOS", "PAD", "UNK", "Tokenizer", "normalize_text"]
