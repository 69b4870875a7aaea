"""Word and character error rates, of each utterance and over all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from asr.errors import AsrError
from asr.scoring.align import UNIT, Counts, Edit, align, count
from asr.scoring.lattice import bare, is_marked
from asr.scoring.normalise import normaliser
from asr.scoring.units import Measure, measure

_WORDS = Measure()


@dataclass(frozen=True, slots=True)
class UtteranceScore:
    """One utterance: both texts as they were compared (normalised, if so asked), and what sets them apart."""

    id: str
    ref: str
    hyp: str
    words: Counts
    chars: Counts
    mixed: Counts | None = None
    measure: Measure = _WORDS

    @property
    def tokens(self) -> Counts:
        """The counts of the unit: `words`, `chars` or `mixed`."""
        if self.measure.unit == "mixed" and self.mixed is not None:
            return self.mixed
        return self.chars if self.measure.unit == "chars" else self.words

    @property
    def alignment(self) -> list[Edit]:
        """The alignment that `tokens` counts, from left to right; found anew whenever it is asked for."""
        how = self.measure
        return align(how.parse(self.ref), how.parse(self.hyp), how.weights(how.unit)).edits


@dataclass(frozen=True)
class Score:
    """All utterances in the order of the references; ids without a hypothesis, and without a reference.

    `attributes` is what a manifest says of an utterance, by id: speaker, lang, audio and other keys.
    """

    utterances: tuple[UtteranceScore, ...]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    measure: Measure = _WORDS
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def words(self) -> Counts:
        return _total([utterance.words for utterance in self.utterances])

    @cached_property
    def chars(self) -> Counts:
        return _total([utterance.chars for utterance in self.utterances])

    @cached_property
    def tokens(self) -> Counts:
        """Counts in the unit of the score."""
        return _total([utterance.tokens for utterance in self.utterances])

    @property
    def wer(self) -> float:
        """Word errors of all utterances by words of all references: see `Counts.rate`."""
        return self.words.rate

    @property
    def cer(self) -> float:
        """The same over characters."""
        return self.chars.rate

    @property
    def mer(self) -> float:
        """Match error rate in the unit: errors by hits and errors, 1.0 at most (Morris et al. 2004)."""
        total = self.tokens.hits + self.tokens.errors
        return self.tokens.errors / total if total else 0.0

    @property
    def wil(self) -> float:
        """Information lost in the unit: 1 - hits^2 / (reference x hypothesis length) (Morris et al. 2004)."""
        found = self.tokens
        lengths = found.reference_length * (found.hits + found.substitutions + found.insertions)
        return 1 - found.hits**2 / lengths if lengths else float(found.errors > 0)

    @cached_property
    def sentence_errors(self) -> int:
        """Utterances with at least one error in the unit."""
        return sum(utterance.tokens.errors > 0 for utterance in self.utterances)

    @property
    def sentence_error_rate(self) -> float:
        """`sentence_errors` by number of utterances; 0.0 without any."""
        return self.sentence_errors / len(self.utterances) if self.utterances else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything but the alignments, ready for JSON: a rate that is infinite becomes None (null)."""
        return {
            "normalisation": self.measure.normalisation,
            "unit": self.measure.unit,
            "costs": self.measure.costs,
            "error_rate": _finite(self.tokens.rate),
            "wer": _finite(self.wer),
            "cer": _finite(self.cer),
            "mer": self.mer,
            "wil": self.wil,
            "sentence_error_rate": self.sentence_error_rate,
            "words": self.words.to_dict(),
            "chars": self.chars.to_dict(),
            "tokens": self.tokens.to_dict(),
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
                | ({"mixed": utterance.mixed.to_dict()} if utterance.mixed else {})
                for utterance in self.utterances
            ],
        }


def score(
    refs: Mapping[str, str] | Sequence[str],
    hyps: Mapping[str, str] | Sequence[str],
    *,
    unit: str = "auto",
    normalise: str = "none",
    costs: str = "unit",
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Score:
    """Score hypotheses against references: both id -> text, or both lists of equal length.

    Mappings are matched by id. A missing hypothesis counts as empty, that is as deletions, and its id is
    listed in `missing`; an id without a reference is listed in `extra` and not counted. Lists are matched
    by position, and ids are positions from "0".

    Without `normalise` (see `normalise.normaliser`) texts are compared as they are: case, punctuation and
    Unicode forms count. Words are what stands between white space. Characters are code points of the text
    with each run of white space made one space and none at its ends; that space counts as a character.

    `unit` is what sentence errors, MER, WIL, alignments and the report are about: "words", "chars", "mixed"
    (Chinese, Japanese and Thai characters singly, other scripts as words) or "auto": characters where most
    of the references are of those scripts, else words. In "chars" and "mixed" of those texts spaces do not
    count. `costs` are of the alignment in that unit: "unit", or "nist" (4, 3, 3), with which alternatives
    `{ a / b / @ }` and optional words `(uh)` have sclite's meaning.

    Raises AsrError for lists of different lengths, a list against a mapping, a string in place of a list,
    ids of which none match, and names that are none.
    """
    refs, hyps = _by_id(refs, hyps)
    extra = tuple(id for id in hyps if id not in refs)
    if refs and hyps and len(extra) == len(hyps):
        raise AsrError(
            f"no hypothesis ({len(hyps)} in all) has the id of a reference: the first hypothesis is "
            f"{next(iter(hyps))!r}, the first reference {next(iter(refs))!r}; name utterances alike in both"
        )
    change = normaliser(normalise)
    how = measure(unit, costs, normalise, refs.values())
    utterances = []
    for id, ref in refs.items():
        hyp = hyps.get(id, "")
        if change:
            if costs == "nist" and normalise != "case" and is_marked(ref):
                raise AsrError(
                    f"utterance {id!r} has alternatives or optional words, which normalisation "
                    f"{normalise!r} would destroy; use none or case with NIST costs"
                )
            ref, hyp = change(ref), change(hyp)
        try:
            utterances.append(_compare(id, ref, hyp, how))
        except AsrError as error:
            raise AsrError(f"utterance {id!r}: {error}") from None
    missing = tuple(id for id in refs if id not in hyps)
    return Score(tuple(utterances), missing, extra, how, attributes or {})


def _compare(id: str, ref: str, hyp: str, how: Measure) -> UtteranceScore:
    if how.costs == "nist" and how.unit == "words" and (is_marked(ref) or is_marked(hyp)):
        found = align(how.parse(ref), how.parse(hyp), how.weights("words"))
        # Characters are those of the alternatives that were chosen.
        left = " ".join(bare(r) for _, r, h in found.edits if r and not (h is None and r != bare(r)))
        right = " ".join(bare(h) for _, r, h in found.edits if h and not (r is None and h != bare(h)))
        return UtteranceScore(id, ref, hyp, found.counts, count(left, right, UNIT), None, how)
    words = count(ref.split(), hyp.split(), how.weights("words"))
    chars = count(how.chars(ref), how.chars(hyp), how.weights("chars"))
    mixed = count(how.split(ref), how.split(hyp), how.weights("mixed")) if how.unit == "mixed" else None
    return UtteranceScore(id, ref, hyp, words, chars, mixed, how)


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


def _total(counts: Sequence[Counts]) -> Counts:
    # Column by column: adding a million Counts one to another makes a million objects.
    return Counts(
        sum(c.hits for c in counts),
        sum(c.substitutions for c in counts),
        sum(c.deletions for c in counts),
        sum(c.insertions for c in counts),
    )


def _finite(rate: float) -> float | None:
    return rate if math.isfinite(rate) else None
