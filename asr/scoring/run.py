"""`asr score` without its command line: files are read and scored, a report is made."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.datasets.normalization import recorded
from asr.errors import AsrError
from asr.files import atomic_write
from asr.scoring import breakdown, formats, html, normalize, report
from asr.scoring.timed import IGNORED
from asr.scoring.wer import Score, UtteranceScore, score

if TYPE_CHECKING:  # imported only where needed: they import numpy and scipy, which take time
    from asr.scoring.significance import Comparison, Interval, Test

NIST = ("sys", "raw", "pra")


@dataclass(frozen=True)
class Options:
    """The options of `asr score`; None and False mean that an option was not given."""

    against: Path | None = None  # hypotheses of a second system
    ref_format: str | None = None  # one of formats.FORMATS
    hyp_format: str | None = None
    unit: str = "auto"
    normalize: str = "none"
    map: Path | None = None  # `old => new` on each line
    drop: Path | None = None  # a word or phrase on each line
    costs: str = "unit"
    by: tuple[str, ...] = ()  # "length", "speaker" or any other key of the references
    intervals: bool = False  # bootstrap, 95 %
    block: str = "auto"  # unit of the bootstrap: "utterance" or any key of the references
    html: Path | None = None
    nist: str | None = None  # one of NIST
    json: bool = False
    worst: int | None = None  # utterances shown with their errors
    fail_missing: bool = False


@dataclass(frozen=True)
class Report:
    """Text to print, warnings for stderr, and the reason if the command must fail after printing."""

    text: str
    warnings: tuple[str, ...] = ()
    failure: str = ""


def run(ref: Path, hyp: Path, options: Options) -> Report:
    """Read, score, write the HTML page if one is asked for, and return the report.

    Raises AsrError for files that cannot be read or written, and options that exclude each other.
    """
    _check(options)
    _check_outputs([ref, hyp, options.against, options.map, options.drop], options.html)
    refs, hyps = formats.read_pair(ref, hyp, options.ref_format, options.hyp_format)
    warnings: list[str] = []
    if normalized := recorded(ref):
        warnings.append(f"{ref}: its texts were normalized at preparation ({normalized})")
    ignored = {segment.id for segment in refs.segments if segment.text.upper() == IGNORED}
    if ignored:
        warnings.append(f"{ref}: {len(ignored)} segments marked {IGNORED}; they are not scored")
        if len(ignored) == len(refs.texts):
            raise AsrError(f"{ref}: all segments are marked {IGNORED}; there is nothing to score")
    mapping = _mapping(options)
    first = _score(refs, hyps, hyp, ignored, mapping, options)
    warnings += _unmatched(first, ref, hyp)
    tables = {key: breakdown.groups(first, key) for key in options.by}
    failure = _missing(first, hyp) if options.fail_missing else ""
    interval, blocks = None, ""
    comparison = second = None
    if options.intervals or options.against:
        names, blocks = _blocks(first, options.block)
    if options.intervals:
        interval = _interval(first, names)
    if options.against:
        # "lines" was possibly chosen for the hypotheses by --hyp-format, and holds for both systems.
        other = formats.read_hyp(options.against, refs, options.hyp_format)
        second = _score(refs, other, options.against, ignored, mapping, options)
        warnings += _unmatched(second, ref, options.against)
        failure = failure or (_missing(second, options.against) if options.fail_missing else "")
        comparison = _compare(first, second, names)
    if options.html:
        by = [*options.by, *(key for key in ("length", "speaker") if key not in options.by)]
        both = None
        if second and comparison and options.against:
            both = html.Second(options.against, second, comparison)
        with atomic_write(options.html) as out:
            out.writelines(html.page(first, html.Names(ref, hyp, options.html), by, interval, both))
    if options.nist:
        return Report(_nist(first, options.nist, hyp.stem), tuple(warnings), failure)
    if options.json:
        record = first.to_dict() | {"confusions": breakdown.confusions(first).to_dict()}
        if tables:
            record["by"] = {key: [group.to_dict() for group in groups] for key, groups in tables.items()}
        if interval:
            record["interval"] = interval.to_dict() | {"over": blocks}
        if comparison:
            record["comparison"] = comparison.to_dict() | {"over": blocks}
        return Report(json.dumps(_finite(record), ensure_ascii=False), tuple(warnings), failure)
    parts = [report.summary(first, 5 if options.worst is None else options.worst)]
    if interval:
        parts.insert(0, _interval_text(interval, blocks))
    parts += [report.table(key, groups) for key, groups in tables.items()]
    if comparison and options.against:
        parts.append("\n".join(_comparison_text(comparison, hyp, options.against)))
    return Report("\n\n".join(parts), tuple(warnings), failure)


def _check(options: Options) -> None:
    if options.nist and options.nist not in NIST:
        raise AsrError(f"--nist {options.nist!r}: unknown report; choose one of {', '.join(NIST)}")
    if options.json and options.worst is not None:
        raise AsrError("--worst is for the text report and --json lists every utterance; leave one out")
    if options.block != "auto" and not (options.intervals or options.against):
        raise AsrError("--block is for bootstrap intervals; give it with --intervals or --against")
    if options.nist:
        present = {
            "--json": options.json, "--worst": options.worst is not None, "--by": bool(options.by),
            "--intervals": options.intervals, "--against": options.against is not None,
        }  # fmt: skip
        if refused := [name for name, there in present.items() if there]:
            raise AsrError(f"{refused[0]} does not apply to --nist, whose tables are fixed; leave one out")


def _check_outputs(inputs: Sequence[Path | None], page: Path | None) -> None:
    """Refuse to write the HTML page, or redirected standard output, over an input."""
    used = [path for path in inputs if path]
    if sum(str(path) == "-" for path in used) > 1:
        raise AsrError("standard input (-) can be only one of the inputs; give a file for the others")
    for path in used:
        if page and _same(page, path):
            raise AsrError(f"--html {page} would overwrite the input {path}; choose another file")
        if page and path.is_dir() and page.suffix == ".txt" and page.resolve().is_relative_to(path.resolve()):
            raise AsrError(f"--html {page} is a .txt file in the input folder {path}; choose another file")
        if _is_stdout(path):
            raise AsrError(f"the output is redirected to the input {path}; choose another file")


def _same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:  # one of them does not exist
        return False


def _is_stdout(path: Path) -> bool:
    try:
        return path.is_file() and os.path.samestat(path.stat(), os.fstat(1))
    except OSError:  # standard output is closed
        return False


def _mapping(options: Options) -> dict[str, str]:
    rules: dict[str, str] = {}
    if options.map:
        rules |= normalize.read_mapping(formats.read_file(options.map), options.map)
    if options.drop:
        rules |= normalize.read_words(formats.read_file(options.drop), options.drop)
    return rules


def _score(
    refs: formats.Transcripts,
    hyps: formats.Transcripts,
    path: Path,
    ignored: set[str],
    mapping: Mapping[str, str],
    options: Options,
) -> Score:
    if hyps.format == "ctm" and any("{ " in text for text in hyps.texts.values()):
        if options.costs == "unit":
            raise AsrError(f"{path}: the ctm has alternatives (<ALT>), which need --costs nist")
        if options.normalize not in ("none", "case"):
            raise AsrError(
                f"{path}: the ctm has alternatives (<ALT>), which normalization {options.normalize!r} would "
                "destroy; use none or case with NIST costs"
            )
    ref_texts, hyp_texts = (
        {id: text for id, text in side.texts.items() if id not in ignored} if ignored else side.texts
        for side in (refs, hyps)
    )
    return score(
        ref_texts,
        hyp_texts,
        unit=options.unit,
        normalize=options.normalize,
        costs=options.costs,
        mapping=mapping,
        attributes=refs.attributes,
    )


def _missing(score: Score, hyp: Path) -> str:
    if not score.missing:
        return ""
    return f"{hyp}: no hypothesis for {_few(score.missing)}; --fail-missing requires one for each reference"


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
    """The score with the counts of its unit in place of words, because NIST's reports and tests use words."""
    if score.measure.unit == "words":
        return score
    changed = [
        UtteranceScore(u.id, u.ref, u.hyp, u.tokens, u.chars, u.mixed, u.measure) for u in score.utterances
    ]
    return Score(tuple(changed), score.missing, score.extra, score.measure, score.attributes)


def _blocks(score: Score, key: str) -> tuple[dict[str, str] | None, str]:
    """The bootstrap block of each utterance id, None if each is its own, and the name of the blocks.

    "auto" is the speaker, if every utterance has one and there are at least two. Raises AsrError for a key
    that an utterance does not have.
    """
    if key == "utterance":
        return None, "utterances"
    name = "speaker" if key == "auto" else key
    found = {u.id: score.attributes.get(u.id, {}).get(name) for u in score.utterances}
    lacking = [id for id, value in found.items() if value is None]
    if key == "auto" and (lacking or len(set(found.values())) < 2):
        return None, "utterances"
    if lacking:
        raise AsrError(f"--block {key}: {_few(lacking)} without {key!r} in the references")
    plural = "speakers" if name == "speaker" else f"values of {name}"
    return {id: str(value) for id, value in found.items()}, plural


def _interval(score: Score, blocks: dict[str, str] | None) -> Interval:
    from asr.scoring import significance

    names = [blocks[u.id] for u in score.utterances] if blocks else None
    return significance.interval([u.tokens for u in score.utterances], names)


def _compare(first: Score, second: Score, blocks: dict[str, str] | None) -> Comparison:
    from asr.scoring import significance

    return significance.compare(_in_words(first), _in_words(second), by=blocks)


def _nist(score: Score, kind: str, title: str) -> str:
    from asr.scoring import nist

    if kind == "pra":
        return "\n".join(nist.pra(_in_words(score), title))
    table = nist.sys if kind == "sys" else nist.raw
    # sclite's rule takes speakers from the ids where no reference names one; where some do, the rest are "-".
    named = any("speaker" in score.attributes.get(u.id, {}) for u in score.utterances)
    speakers = {u.id: str(score.attributes.get(u.id, {}).get("speaker", "-")) for u in score.utterances}
    heading = f"{title} ({report.described(score)})"
    return table(_in_words(score), heading, speakers if named else None)


def _interval_text(interval: Interval, blocks: str) -> str:
    return (
        f"{interval.rate:.2%}, 95% interval {interval.low:.2%} to {interval.high:.2%} "
        f"(bootstrap over {interval.blocks} {blocks}, {interval.samples} samples)"
    )


def _comparison_text(found: Comparison, first: Path, second: Path) -> list[str]:
    """Lines of text: both rates, their difference and the tests."""
    apart = found.difference
    lines = [
        f"{first}: {found.first:.2%}",
        f"{second}: {found.second:.2%}",
        f"difference {apart.rate:+.2%}, 95% interval {apart.low:+.2%} to {apart.high:+.2%}; "
        f"the first is better with probability {found.probability_first_better:.3f} (bootstrap)",
    ]
    tests: list[Test] = [found.mapsswe, found.sign, found.wilcoxon]
    lines += [f"{t.name:9} {report.p_value(t.p)}  (statistic {t.statistic:.3f}, n = {t.n})" for t in tests]
    return lines


def _finite(value: Any) -> Any:
    """JSON has no infinity: null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
