"""What `asr score` does: files in, one report out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.errors import AsrError
from asr.files import atomic_write
from asr.scoring import breakdown, formats, html, report
from asr.scoring.timed import IGNORED
from asr.scoring.wer import Score, UtteranceScore, score

if TYPE_CHECKING:  # numpy and scipy only where they are needed: a plain score should not wait for them
    from asr.scoring.significance import Comparison, Interval, Test

NIST = ("sys", "raw", "pra")


@dataclass(frozen=True)
class Options:
    """What `asr score` was asked for; None and False stand for what was not given."""

    against: Path | None = None  # a second system's hypotheses
    ref_format: str | None = None  # one of formats.FORMATS
    hyp_format: str | None = None
    unit: str = "auto"
    normalise: str = "none"
    costs: str = "unit"
    by: tuple[str, ...] = ()  # "length", "speaker" or any other key of the references
    intervals: bool = False  # bootstrap, 95 %
    html: Path | None = None
    nist: str | None = None  # one of NIST
    json: bool = False
    worst: int | None = None  # utterances shown with their errors


@dataclass(frozen=True)
class Report:
    """What is to be printed, and warnings for stderr."""

    text: str
    warnings: tuple[str, ...] = ()


def run(ref: Path, hyp: Path, options: Options) -> Report:
    """Read, score, write the HTML page if one is wanted, and put the report into words.

    Raises AsrError for files that cannot be read or written, and options that do not go together.
    """
    _check(options)
    refs, hyps = formats.read_pair(ref, hyp, options.ref_format, options.hyp_format)
    warnings: list[str] = []
    ignored = {segment.id for segment in refs.segments if segment.text.upper() == IGNORED}
    if ignored:
        warnings.append(f"{ref}: {len(ignored)} segments marked {IGNORED} and their words do not count")
    first = _score(refs, hyps, ignored, options)
    warnings += _unmatched(first, ref, hyp)
    tables = {key: breakdown.groups(first, key) for key in options.by}
    interval, blocks = _interval(first) if options.intervals else (None, "")
    comparison = None
    if options.against:
        other = formats.read_hyp(options.against, refs, options.hyp_format)
        second = _score(refs, other, ignored, options)
        warnings += _unmatched(second, ref, options.against)
        comparison = _compare(first, second)
    if options.html:
        by = [*options.by, *(key for key in ("length", "speaker") if key not in options.by)]
        with atomic_write(options.html) as out:
            out.writelines(html.page(first, html.Names(ref, hyp, options.html), by, interval))
    if options.nist:
        return Report(_nist(first, options.nist, hyp.stem), tuple(warnings))
    if options.json:
        record = first.to_dict() | {"confusions": breakdown.confusions(first).to_dict()}
        if tables:
            record["by"] = {key: [group.to_dict() for group in groups] for key, groups in tables.items()}
        if interval:
            record["interval"] = interval.to_dict() | {"over": blocks}
        if comparison:
            record["comparison"] = comparison.to_dict()
        return Report(json.dumps(_finite(record), ensure_ascii=False), tuple(warnings))
    parts = [report.summary(first, 5 if options.worst is None else options.worst)]
    if interval:
        parts.insert(0, _interval_text(interval, blocks))
    parts += [report.table(key, groups) for key, groups in tables.items()]
    if comparison:
        parts.append(_comparison_text(comparison, str(hyp), str(options.against)))
    return Report("\n\n".join(parts), tuple(warnings))


def _check(options: Options) -> None:
    if options.nist and options.nist not in NIST:
        raise AsrError(f"--nist {options.nist!r} is none of {', '.join(NIST)}")
    if options.json and options.worst is not None:
        raise AsrError("--worst is for the text report and --json lists every utterance; leave one out")
    if options.nist:
        given = {
            "--json": options.json, "--worst": options.worst is not None, "--by": bool(options.by),
            "--intervals": options.intervals, "--against": options.against is not None,
        }  # fmt: skip
        if refused := [name for name, there in given.items() if there]:
            raise AsrError(f"{refused[0]} does not apply to --nist, whose tables are fixed; leave one out")


def _score(refs: formats.Texts, hyps: formats.Texts, ignored: set[str], options: Options) -> Score:
    said, heard = (
        {id: text for id, text in side.texts.items() if id not in ignored} if ignored else side.texts
        for side in (refs, hyps)
    )
    return score(
        said,
        heard,
        unit=options.unit,
        normalise=options.normalise,
        costs=options.costs,
        attributes=refs.attributes,
    )


def _unmatched(score: Score, ref: Path, hyp: Path) -> list[str]:
    warnings = []
    if score.missing:
        warnings.append(f"{hyp}: no hypothesis for {_few(score.missing)}; counted as deletions")
    if score.extra:
        warnings.append(f"{ref}: no reference for {_few(score.extra)}; not counted")
    return warnings


def _few(ids: Sequence[str]) -> str:
    more = ", ..." if len(ids) > 3 else ""
    return f"{len(ids)} {'id' if len(ids) == 1 else 'ids'} ({', '.join(ids[:3])}{more})"


def _in_words(score: Score) -> Score:
    """The score with its unit in the place of words, which is what NIST's reports and tests look at."""
    if score.measure.unit == "words":
        return score
    changed = [
        UtteranceScore(u.id, u.ref, u.hyp, u.tokens, u.chars, u.mixed, u.measure) for u in score.utterances
    ]
    return Score(tuple(changed), score.missing, score.extra, score.measure, score.attributes)


def _speakers(score: Score) -> dict[str, str] | None:
    """Speaker by utterance id, if every utterance has one and there are at least two."""
    found = {u.id: score.attributes.get(u.id, {}).get("speaker") for u in score.utterances}
    names = set(found.values())
    return None if None in names or len(names) < 2 else {id: str(name) for id, name in found.items()}


def _interval(score: Score) -> tuple[Interval, str]:
    from asr.scoring import significance

    speakers = _speakers(score)
    blocks = [speakers[u.id] for u in score.utterances] if speakers else None
    found = significance.interval([u.tokens for u in score.utterances], blocks)
    return found, "speakers" if speakers else "utterances"


def _compare(first: Score, second: Score) -> Comparison:
    from asr.scoring import significance

    return significance.compare(_in_words(first), _in_words(second), by=_speakers(first))


def _nist(score: Score, kind: str, title: str) -> str:
    from asr.scoring import nist

    if kind == "pra":
        return "\n".join(nist.pra(_in_words(score), title))
    table = nist.sys if kind == "sys" else nist.raw
    # Speakers of a trn are in its ids, which sclite's own rule reads.
    named = any("speaker" in score.attributes.get(u.id, {}) for u in score.utterances)
    speakers = {u.id: str(score.attributes.get(u.id, {}).get("speaker", "-")) for u in score.utterances}
    heading = f"{title} ({report.described(score)})"
    return table(_in_words(score), heading, speakers if named else None)


def _interval_text(interval: Interval, blocks: str) -> str:
    return (
        f"{interval.rate:.2%}, 95% interval {interval.low:.2%} to {interval.high:.2%} "
        f"(bootstrap over {interval.blocks} {blocks}, {interval.samples} samples)"
    )


def _comparison_text(found: Comparison, first: str, second: str) -> str:
    apart = found.difference
    lines = [
        f"{first}: {found.first:.2%}",
        f"{second}: {found.second:.2%}",
        f"difference {apart.rate:+.2%}, 95% interval {apart.low:+.2%} to {apart.high:+.2%}; "
        f"the first is better with probability {found.probability_first_better:.3f} (bootstrap)",
    ]
    tests: list[Test] = [found.mapsswe, found.sign, found.wilcoxon]
    lines += [f"{t.name:9} p = {t.p:.4f}  (statistic {t.statistic:.3f}, n = {t.n})" for t in tests]
    return "\n".join(lines)


def _finite(value: Any) -> Any:
    """JSON has no infinity: null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
