"""Word n-gram language models: the model and its file, ARPA files, estimation from text."""

from asr.decoding.ngram.arpa import read_arpa, write_arpa
from asr.decoding.ngram.estimate import estimate_ngram
from asr.decoding.ngram.model import NgramModel, Perplexity, load_ngram
from asr.decoding.ngram.train import train_ngram

__all__ = [
    "NgramModel",
    "Perplexity",
    "estimate_ngram",
    "load_ngram",
    "read_arpa",
    "train_ngram",
    "write_arpa",
]
