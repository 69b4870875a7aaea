"""A score in plain text, for the terminal."""

from __future__ import annotations

from asr.scoring.wer import Counts, Score, UtteranceScore


def summary(score: Score, worst: int = 5) -> str:
    """Lines of plain text: rates with their counts, then the `worst` utterances with their errors inline.

    WER  20.00%  2 errors in 10 words: 1 substituted, 1 deleted, 0 inserted
    ...
    b7 (2): the (cat->hat) sat (down->*)
    """
    total = len(score.utterances)
    lines = [
        f"WER {_rates(score.words, 'words')}",
        f"CER {_rates(score.chars, 'characters')}",
        f"SER {score.sentence_error_rate:7.2%}  {score.sentence_errors} of {total} utterances have an error",
    ]
    if score.missing:
        lines.append(f"without a hypothesis, counted as deletions: {len(score.missing)} of {total}")
    if score.extra:
        lines.append(f"without a reference, not counted: {len(score.extra)}")
    # By errors and not by rate: these are the utterances that move the result. Equals keep their order.
    wrong = sorted((u for u in score.utterances if u.words.errors), key=lambda u: -u.words.errors)
    if shown := wrong[: max(worst, 0)]:
        lines += ["", "Utterances with most errors, (SAID->HEARD):"]
        lines += [f"{utterance.id} ({utterance.words.errors}): {inline(utterance)}" for utterance in shown]
    return "\n".join(lines)


def inline(utterance: UtteranceScore) -> str:
    """The reference with its errors: "the (cat->hat) sat (down->*) (*->now)"; `*` stands for no word."""
    return " ".join(
        f"{ref}" if operation == "equal" else f"({ref or '*'}->{hyp or '*'})"
        for operation, ref, hyp in utterance.alignment
    )


def _rates(counts: Counts, unit: str) -> str:
    return (
        f"{counts.rate:7.2%}  {counts.errors} errors in {counts.reference_length} {unit}: "
        f"{counts.substitutions} substituted, {counts.deletions} deleted, {counts.insertions} inserted"
    )
