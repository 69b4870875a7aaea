"""From a corpus on disk to manifests. Each kind of corpus has its reader; the rest is the same for all."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asr.datasets.corpora.base import LEFT_OUT, Subsets
from asr.datasets.corpora.fsdd import write_strings
from asr.datasets.corpora.table import CORPORA
from asr.datasets.durations import measure
from asr.datasets.manifest import Utterance, write_manifest
from asr.datasets.normalization import normalize_splits, split_records, text_normalizer, write_records
from asr.datasets.splitting import hold_out
from asr.errors import AsrError
from asr.files import atomic_write, printable


@dataclass(frozen=True)
class Options:
    """The options of `asr prepare`."""

    download: bool = False  # into the source folder, before it is read
    subsets: tuple[str, ...] = ()  # splits or languages; none: all
    normalize: str | None = None  # names for text_normalizer
    lang: str | None = None  # of utterances whose language is not known
    hold_out: dict[str, float] = field(default_factory=dict)  # share of the hours of each new split


@dataclass(frozen=True)
class Prepared:
    """The utterances that were written, by split, a line for each that was left out, and other notes."""

    splits: dict[str, list[Utterance]]
    bad: list[str]
    notes: list[str]


def prepare_corpus(kind: str, source: Path, out: Path, options: Options | None = None) -> Prepared:
    """Read the corpus at `source` and write OUT/<split>.jsonl; audio stays where it is.

    OUT/corpus.json records the corpus, its license, the normalization of its texts and the counts, and
    OUT/left_out.txt lists what was left out. Utterances whose audio cannot be read are left out and reported
    in `bad`. Raises AsrError when `source` is not a corpus of this kind, ids are not unique within a split,
    or nothing is left.
    """
    options, corpus = options or Options(), CORPORA[kind]
    if options.normalize is not None:
        text_normalizer(options.normalize)  # a wrong name is reported before a long download
    if options.download:
        from asr.datasets.download import download_corpus

        download_corpus(corpus, source, options.subsets)
    if not source.exists():
        also = "" if not corpus.archives else ", or add --download"
        raise AsrError(f"{source}: no such file or folder; check the path of the corpus{also}")
    if corpus.license and not source.is_dir():
        raise AsrError(f"{source}: not a folder; unpack the corpus and give its folder")
    bad, notes = list[str](), list[str]()
    subsets = Subsets(options.subsets)
    splits = corpus.read()(source, bad, subsets)
    subsets.refuse_unknown(source)
    if options.lang is not None:
        splits = {
            name: [u if u.lang else replace(u, lang=options.lang) for u in group]
            for name, group in splits.items()
        }
    if options.normalize is not None:
        splits = normalize_splits(splits, options.normalize, bad, notes)
    splits = {name: group for name, group in measure(splits, bad).items() if group}
    if not splits:
        reason = f"; the first problem: {bad[0]}" if bad else f"; check that it is a corpus of kind {kind!r}"
        raise AsrError(f"{source}: no usable utterance ({len(bad)} left out){reason}")
    without_text = [u.id for group in splits.values() for u in group if u.text is None and u.phonemes is None]
    if without_text:
        names = ", ".join(without_text[:3]) + (", ..." if len(without_text) > 3 else "")
        notes.append(
            f"{len(without_text)} utterances have no text or phonemes, which training needs: {names}"
        )
    splits = hold_out(splits, options.hold_out, notes)
    if kind == "fsdd":
        splits |= write_strings(splits, out)
    for name, group in splits.items():
        _check(source, name, group)
    for name, group in splits.items():
        write_manifest(out / f"{name}.jsonl", group)
    _record(out, kind, options, splits, bad)
    return Prepared(splits, bad, notes)


def _record(
    out: Path, kind: str, options: Options, splits: dict[str, list[Utterance]], bad: list[str]
) -> None:
    """Write OUT/corpus.json, and OUT/left_out.txt if there is something in it.

    The records of splits of an earlier call stay, as their manifests do.
    """
    corpus = CORPORA[kind]
    record: dict[str, Any] = {
        "corpus": corpus.name,
        "license": corpus.license or None,
        "site": corpus.site or None,
        "normalize": options.normalize or "none",
    }
    earlier = {n: r for n, r in split_records(out).items() if (out / f"{n}.jsonl").exists()}
    write_records(out, earlier | {name: record | counts(group) for name, group in splits.items()})
    path = out / LEFT_OUT
    if bad:
        with atomic_write(path) as file:
            file.writelines(f"{printable(line)}\n" for line in bad)
    else:
        path.unlink(missing_ok=True)  # of an earlier call


def counts(group: list[Utterance]) -> dict[str, float]:
    """The number of utterances and speakers, and the hours."""
    hours = sum(utterance.duration or 0.0 for utterance in group) / 3600
    speakers = {utterance.speaker for utterance in group} - {None}
    return {"utterances": len(group), "hours": round(hours, 4), "speakers": len(speakers)}


def _check(source: Path, split: str, group: list[Utterance]) -> None:
    if not re.fullmatch(r"[\w-][\w.-]*", split):
        raise AsrError(
            f"{source}: the split name {split!r} cannot be a file name; use letters, digits, - and _"
        )
    seen: set[str] = set()
    for utterance in group:
        if utterance.id in seen:
            raise AsrError(f"{source}: duplicate id {utterance.id!r} in split {split!r}; rename one")
        seen.add(utterance.id)
