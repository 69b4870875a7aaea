"""Word and character error rates, of each utterance and over all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jiwer

from asr.errors import AsrError
from asr.scoring.align import Counts, Edit


@dataclass(frozen=True)
class UtteranceScore:
    """One utterance: both texts as they were given, and what sets them apart."""

    id: str
    ref: str
    hyp: str
    words: Counts
    chars: Counts

    @cached_property
    def alignment(self) -> list[Edit]:
        """The word alignment that `words` counts, from left to right; found when first asked for."""
        found = jiwer.process_words(_collapse(self.ref), _collapse(self.hyp))
        ref, hyp = found.references[0], found.hypotheses[0]
        edits: list[Edit] = []
        for chunk in found.alignments[0]:
            # jiwer's chunks are runs of one operation; a deletion is wide on the reference's side only.
            ref_words: Sequence[str | None] = ref[chunk.ref_start_idx : chunk.ref_end_idx]
            hyp_words: Sequence[str | None] = hyp[chunk.hyp_start_idx : chunk.hyp_end_idx]
            width = max(len(ref_words), len(hyp_words))
            pairs = zip(ref_words or [None] * width, hyp_words or [None] * width, strict=True)
            edits += [(chunk.type, *pair) for pair in pairs]  # type: ignore[misc]
        return edits


@dataclass(frozen=True)
class Score:
    """All utterances in the order of the references; ids without a hypothesis, and without a reference."""

    utterances: tuple[UtteranceScore, ...]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @cached_property
    def words(self) -> Counts:
        return sum((utterance.words for utterance in self.utterances), Counts())

    @cached_property
    def chars(self) -> Counts:
        return sum((utterance.chars for utterance in self.utterances), Counts())

    @property
    def wer(self) -> float:
        """Word errors of all utterances by words of all references: see `Counts.rate`."""
        return self.words.rate

    @property
    def cer(self) -> float:
        """The same over characters."""
        return self.chars.rate

    @cached_property
    def sentence_errors(self) -> int:
        """Utterances with at least one word error."""
        return sum(utterance.words.errors > 0 for utterance in self.utterances)

    @property
    def sentence_error_rate(self) -> float:
        """`sentence_errors` by number of utterances; 0.0 without any."""
        return self.sentence_errors / len(self.utterances) if self.utterances else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything but the alignments, ready for JSON: a rate that is infinite becomes None (null)."""
        return {
            "wer": _finite(self.wer),
            "cer": _finite(self.cer),
            "sentence_error_rate": self.sentence_error_rate,
            "words": self.words.to_dict(),
            "chars": self.chars.to_dict(),
            "missing": list(self.missing),
            "extra": list(self.extra),
            "utterances": [
                {
                    "id": utterance.id,
                    "ref": utterance.ref,
                    "hyp": utterance.hyp,
                    "wer": _finite(utterance.words.rate),
                    "cer": _finite(utterance.chars.rate),
                    "words": utterance.words.to_dict(),
                    "chars": utterance.chars.to_dict(),
                }
                for utterance in self.utterances
            ],
        }


def score(refs: Mapping[str, str] | Sequence[str], hyps: Mapping[str, str] | Sequence[str]) -> Score:
    """Score hypotheses against references: both id -> text, or both lists of equal length.

    Mappings are matched by id. A missing hypothesis counts as empty, that is as deletions, and its id is
    listed in `missing`; an id without a reference is listed in `extra` and not counted. Lists are matched
    by position, and ids are positions from "0".

    Texts are compared as they are: case, punctuation and Unicode forms count. Words are what stands between
    white space. Characters are code points of the text with each run of white space made one space and none
    at its ends; that space counts as a character.

    Raises AsrError for lists of different lengths, a list against a mapping, a string in place of a list,
    and ids of which none match.
    """
    refs, hyps = _by_id(refs, hyps)
    extra = tuple(id for id in hyps if id not in refs)
    if refs and hyps and len(extra) == len(hyps):
        raise AsrError(
            f"no hypothesis ({len(hyps)} in all) has the id of a reference: the first hypothesis is "
            f"{next(iter(hyps))!r}, the first reference {next(iter(refs))!r}; name utterances alike in both"
        )
    utterances = []
    for id, ref in refs.items():
        hyp = hyps.get(id, "")
        pair = _collapse(ref), _collapse(hyp)
        # One call of jiwer per utterance: a call over all is no faster, and keeps all alignments in memory.
        words, chars = jiwer.process_words(*pair), jiwer.process_characters(*pair)
        utterances.append(UtteranceScore(id, ref, hyp, _counts(words), _counts(chars)))
    return Score(tuple(utterances), missing=tuple(id for id in refs if id not in hyps), extra=extra)


def _by_id(
    refs: Mapping[str, str] | Sequence[str], hyps: Mapping[str, str] | Sequence[str]
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    if isinstance(refs, Mapping) and isinstance(hyps, Mapping):
        return refs, hyps
    if isinstance(refs, Mapping | str) or isinstance(hyps, Mapping | str):
        raise AsrError("references and hypotheses must both map ids to texts or both be lists of texts")
    if len(refs) != len(hyps):
        raise AsrError(
            f"{len(refs)} references but {len(hyps)} hypotheses: lists are matched by position; "
            "give one hypothesis (it may be empty) for each reference, or map ids to texts"
        )
    return {str(i): text for i, text in enumerate(refs)}, {str(i): text for i, text in enumerate(hyps)}


def _collapse(text: str) -> str:
    # Not left to jiwer: it splits words at U+0020 alone, so that "a<tab>b" would be one word.
    return " ".join(text.split())


def _counts(found: jiwer.WordOutput | jiwer.CharacterOutput) -> Counts:
    # Never jiwer's own rate: against an empty reference it returns the number of insertions.
    return Counts(found.hits, found.substitutions, found.deletions, found.insertions)


def _finite(rate: float) -> float | None:
    return rate if math.isfinite(rate) else None
