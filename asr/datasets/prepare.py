"""From a corpus on disk to manifests. Each kind of corpus has its reader; the rest is the same for all."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from asr.datasets.corpora.folder import read_folder
from asr.datasets.corpora.fsdd import read_fsdd, write_strings
from asr.datasets.corpora.kaldi import read_kaldi
from asr.datasets.corpora.lhotse import read_lhotse
from asr.datasets.corpora.tsv import read_tsv
from asr.datasets.durations import measure
from asr.datasets.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AsrError

# (source, bad) -> split: utterances. A duration of None will be measured. An utterance that cannot be used
# adds one line to `bad`. A corpus that cannot be used raises AsrError.
Reader = Callable[[Path, list[str]], dict[str, list[Utterance]]]


def read_splits(source: Path, bad: list[str]) -> dict[str, list[Utterance]]:
    """A manifest, or the manifest.jsonl of a folder, by the `split` of its lines; "all" without one."""
    splits: dict[str, list[Utterance]] = {}
    for utterance in read_manifest(source / "manifest.jsonl" if source.is_dir() else source):
        splits.setdefault(str(utterance.extra.get("split", "all")), []).append(utterance)
    return splits


READERS: dict[str, Reader] = {
    "folder": read_folder,
    "tsv": read_tsv,
    "kaldi": read_kaldi,
    "lhotse": read_lhotse,
    "manifest": read_splits,
    "fsdd": read_fsdd,
}


@dataclass(frozen=True)
class Prepared:
    """The utterances that were written, by split, and one line for each that was left out."""

    splits: dict[str, list[Utterance]]
    bad: list[str]


def prepare_corpus(kind: str, source: Path, out: Path) -> Prepared:
    """Read the corpus at `source` and write OUT/<split>.jsonl; audio stays where it is.

    Utterances whose audio cannot be read are left out and reported in `bad`. Raises AsrError when `source` is
    not a corpus of this kind, ids are not unique within a split, or nothing is left.
    """
    if not source.exists():
        raise AsrError(f"{source}: no such file or folder; check the path of the corpus")
    bad: list[str] = []
    splits = measure(READERS[kind](source, bad), bad)
    splits = {name: group for name, group in splits.items() if group}
    if not splits:
        reason = f"; the first problem: {bad[0]}" if bad else f"; check that it is a corpus of kind {kind!r}"
        raise AsrError(f"{source}: no usable utterance ({len(bad)} left out){reason}")
    if kind == "fsdd":
        splits |= write_strings(splits, out)
    for name, group in splits.items():
        _check(source, name, group)
    for name, group in splits.items():
        write_manifest(out / f"{name}.jsonl", group)
    return Prepared(splits, bad)


def _check(source: Path, split: str, group: list[Utterance]) -> None:
    if not re.fullmatch(r"[\w-][\w.-]*", split):
        raise AsrError(f"{source}: split {split!r} cannot name a file; use letters, digits, - and _")
    seen: set[str] = set()
    for utterance in group:
        if utterance.id in seen:
            raise AsrError(f"{source}: duplicate id {utterance.id!r} in split {split!r}; rename one")
        seen.add(utterance.id)
