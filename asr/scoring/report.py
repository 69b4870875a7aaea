"""A score in plain text, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from asr.scoring.align import Counts
from asr.scoring.breakdown import Group
from asr.scoring.wer import Score, UtteranceScore


def summary(score: Score, worst: int = 5) -> str:
    """Lines of plain text: rates with their counts, then the `worst` utterances with their errors inline.

    WER  20.00%  2 errors in 10 words: 1 substituted, 1 deleted, 0 inserted
    ...
    b7 (2): the (cat->hat) sat (down->*)
    """
    total = len(score.utterances)
    lines = [
        *_headline(score),
        f"SER {score.sentence_error_rate:7.2%}  {score.sentence_errors} of {total} utterances have an error",
        f"MER {score.mer:7.2%}  WIL {score.wil:.2%}  {described(score)}",
    ]
    if score.missing:
        lines.append(f"without a hypothesis, counted as deletions: {len(score.missing)} of {total}")
    if score.extra:
        lines.append(f"without a reference, not counted: {len(score.extra)}")
    # By errors and not by rate: these utterances change the result most. The sort is stable.
    wrong = sorted((u for u in score.utterances if u.tokens.errors), key=lambda u: -u.tokens.errors)
    if shown := wrong[: max(worst, 0)]:
        lines += ["", "Utterances with most errors, (reference->hypothesis):"]
        lines += [f"{utterance.id} ({utterance.tokens.errors}): {inline(utterance)}" for utterance in shown]
    return "\n".join(lines)


def inline(utterance: UtteranceScore) -> str:
    """The reference with its errors: "the (cat->hat) sat (down->*) (*->now)"; `*` is no word."""
    return " ".join(
        f"{ref}" if operation == "equal" else f"({ref or '*'}->{hyp or '*'})"
        for operation, ref, hyp in utterance.alignment
    )


def described(score: Score) -> str:
    """How the texts were compared: "normalization none, unit words, costs 1/1/1"."""
    how = score.measure
    costs = "/".join(map(str, how.weights(how.unit)))
    return f"normalization {how.normalization}, unit {how.unit}, costs {costs}"


def p_value(p: float) -> str:
    """ "p = 0.0312", or "p < 0.0001": a p-value is never exactly zero."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"


def table(name: str, groups: Sequence[Group]) -> str:
    """A breakdown as lines of plain text with columns; `name` is the title of the first column."""
    wide = max(len(name), *(len(group.name) for group in groups))
    lines = [f"{name:{wide}}  utterances   tokens    error    sub    del    ins    SER"]
    for group in groups:
        c = group.counts
        lines.append(
            f"{group.name:{wide}}  {group.utterances:10} {c.reference_length:8} {group.rate:8.2%} "
            f"{c.substitutions:6} {c.deletions:6} {c.insertions:6} "
            f"{group.sentence_errors / group.utterances:6.1%}"
        )
    return "\n".join(lines)


def _headline(score: Score) -> list[str]:
    """Error rates; that of the unit is the first."""
    words = f"WER {_rates(score.words, 'words')}"
    chars = f"CER {_rates(score.chars, 'characters')}"
    match score.measure.unit:
        case "chars":
            return [chars, words]
        case "mixed":
            return [f"MIX {_rates(score.tokens, 'words and characters')}", words, chars]
    return [words, chars]


def _rates(counts: Counts, unit: str) -> str:
    return (
        f"{counts.rate:7.2%}  {counts.errors} errors in {counts.reference_length} {unit}: "
        f"{counts.substitutions} substituted, {counts.deletions} deleted, {counts.insertions} inserted"
    )
