"""Scoring: word and character error rates, matched by utterance id, with alignments and a report."""

from asr.scoring.align import Counts
from asr.scoring.formats import read_texts
from asr.scoring.report import summary
from asr.scoring.wer import Score, UtteranceScore, score

__all__ = ["Counts", "Score", "UtteranceScore", "read_texts", "score", "summary"]
