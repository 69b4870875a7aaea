"""Scoring: word and character error rates, matched by utterance id, with alignments and reports."""

from asr.scoring.align import Counts
from asr.scoring.breakdown import Confusions, Group, confusions, groups
from asr.scoring.formats import Transcripts, read, read_hyp, read_pair, read_texts
from asr.scoring.report import summary
from asr.scoring.units import Measure
from asr.scoring.wer import Score, UtteranceScore, score

__all__ = [
    "Confusions",
    "Counts",
    "Group",
    "Measure",
    "Score",
    "Transcripts",
    "UtteranceScore",
    "confusions",
    "groups",
    "read",
    "read_hyp",
    "read_pair",
    "read_texts",
    "score",
    "summary",
]
