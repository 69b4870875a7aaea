"""Word and character error rates, of each utterance and over all of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from asr.errors import AsrError
from asr.scoring.align import UNIT, Counts, Edit, align, count, spelled
from asr.scoring.lattice import Lattice, is_marked
from asr.scoring.normalize import normalizer, word_mapper
from asr.scoring.units import Measure, measure

_WORDS = Measure()
_Tokens = Sequence[str] | Lattice


@dataclass(frozen=True, slots=True)
class UtteranceScore:
    """One utterance: both texts as they were compared (normalized, if asked for), and the counts."""

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
        """The alignment that `tokens` counts, from left to right; it is computed at each access."""
        how = self.measure
        return align(how.parse(self.ref), how.parse(self.hyp), how.weights(how.unit)).edits


@dataclass(frozen=True)
class Score:
    """All utterances in the order of the references; ids without a hypothesis, and without a reference.

    `attributes` are the other values of a manifest by utterance id: speaker, lang, audio and other keys.
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
            "normalization": self.measure.normalization,
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
    normalize: str = "none",
    costs: str = "unit",
    mapping: Mapping[str, str] | None = None,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Score:
    """Score hypotheses against references: both id -> text, or both lists of equal length.

    Mappings are matched by id. If an id has no exact match, case is ignored, as sclite does. A missing
    hypothesis counts as empty, that is as deletions, and its id is listed in `missing`; an id without a
    reference is listed in `extra` and not counted. Lists are matched by position; ids are positions from "0".

    Without `normalize` (see `normalize.normalizer`) texts are compared as they are: case, punctuation and
    Unicode forms count. `mapping` (see `normalize.word_mapper`) replaces or drops words of both sides after
    it. Words are separated by white space. Characters are code points of the text, where each run of white
    space is one space, which counts as a character; there is none at the ends.

    `unit` is the unit of sentence errors, MER, WIL, alignments and the report: "words", "chars", "mixed"
    (Chinese, Japanese and Thai characters singly, other scripts as words) or "auto": characters if most of
    the references are of those scripts, else words. In "chars" and "mixed" of those texts spaces do not
    count. `costs` are used for the alignment in that unit: "unit", or "nist" (4, 3, 3), with which
    alternatives `{ a / b / @ }` and optional words `(uh)` have sclite's meaning.

    Raises AsrError for lists of different lengths, a list against a mapping, a string in place of a list, two
    sides without a common id, and unknown names.
    """
    refs, hyps = _by_id(refs, hyps)
    hyps = _matched(refs, hyps)
    extra = tuple(id for id in hyps if id not in refs)
    if refs and hyps and len(extra) == len(hyps):
        raise AsrError(
            f"no hypothesis ({len(hyps)} in all) has the id of a reference: the first hypothesis is "
            f"{next(iter(hyps))!r}, the first reference {next(iter(refs))!r}; use the same ids in both"
        )
    change = normalizer(normalize)
    mapped = word_mapper(mapping, change, nothing="@" if costs == "nist" else "") if mapping else None
    how = measure(unit, costs, f"{normalize} with mapping" if mapping else normalize, refs.values())
    utterances = []
    for id, ref in refs.items():
        hyp = hyps.get(id, "")
        if change:
            if costs == "nist" and normalize != "case" and is_marked(ref):
                raise AsrError(
                    f"utterance {id!r} has alternatives or optional words, which normalization "
                    f"{normalize!r} would destroy; use none or case with NIST costs"
                )
            ref, hyp = change(ref), change(hyp)
        if mapped:
            ref, hyp = mapped(ref), mapped(hyp)
        try:
            utterances.append(_compare(id, ref, hyp, how))
        except AsrError as error:
            raise AsrError(f"utterance {id!r}: {error}") from None
    missing = tuple(id for id in refs if id not in hyps)
    return Score(tuple(utterances), missing, extra, how, attributes or {})


def _compare(id: str, ref: str, hyp: str, how: Measure) -> UtteranceScore:
    mixed = None
    if how.costs == "nist" and (is_marked(ref) or is_marked(hyp)):
        found = align(*_parse(ref, hyp, how, how.unit), how.weights(how.unit))
        if how.unit == "chars":
            # The alternatives with the fewest character errors need not be those with the fewest word errors.
            words = align(*_parse(ref, hyp, how, "words"), UNIT).counts
            return UtteranceScore(id, ref, hyp, words, found.counts, None, how)
        if how.unit == "mixed":
            mixed = found.counts
            found = align(*_parse(ref, hyp, how, "words"), UNIT)
        # Characters are those of the alternatives that were chosen.
        left, right = spelled(found.edits)
        chars = count(how.chars(left), how.chars(right), UNIT)
        return UtteranceScore(id, ref, hyp, found.counts, chars, mixed, how)
    words = count(ref.split(), hyp.split(), how.weights("words"))
    chars = count(how.chars(ref), how.chars(hyp), how.weights("chars"))
    if how.unit == "mixed":
        mixed = count(how.split(ref), how.split(hyp), how.weights("mixed"))
    return UtteranceScore(id, ref, hyp, words, chars, mixed, how)


def _parse(ref: str, hyp: str, how: Measure, unit: str) -> tuple[_Tokens, _Tokens]:
    """Both texts in tokens of a unit. Raises AsrError that names the side with broken braces."""

    def parse(side: str, text: str) -> _Tokens:
        try:
            return how.parse(text, unit)
        except AsrError as error:
            raise AsrError(f"{side}: {error}") from None

    return parse("reference", ref), parse("hypothesis", hyp)


def _matched(refs: Mapping[str, str], hyps: Mapping[str, str]) -> Mapping[str, str]:
    """Hypotheses, where ids that differ from a reference id only in case are replaced by it.

    This is done only if exactly one reference id and one hypothesis id match.
    """
    unmatched = [id for id in hyps if id not in refs]
    if not unmatched:
        return hyps
    folded: dict[str, list[str]] = {}
    for id in refs:
        if id not in hyps:
            folded.setdefault(id.casefold(), []).append(id)
    counts = Counter(id.casefold() for id in unmatched)
    renamed = {}
    for id in unmatched:
        same = folded.get(id.casefold(), [])
        if len(same) == 1 and counts[id.casefold()] == 1:
            renamed[id] = same[0]
    return {renamed.get(id, id): text for id, text in hyps.items()} if renamed else hyps


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
    # Column by column: adding a million Counts would make a million objects.
    return Counts(
        sum(c.hits for c in counts),
        sum(c.substitutions for c in counts),
        sum(c.deletions for c in counts),
        sum(c.insertions for c in counts),
    )


def _finite(rate: float) -> float | None:
    return rate if math.isfinite(rate) else None
