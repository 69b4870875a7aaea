"""A manifest whose lines say to which split they belong."""

from __future__ import annotations

from pathlib import Path

from asr.datasets.corpora.base import ALL, Subsets
from asr.datasets.manifest import Utterance, read_manifest


def read_splits(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """A manifest, or the manifest.jsonl of a folder, by the `split` of its lines; "all" without one."""
    splits: dict[str, list[Utterance]] = {}
    for utterance in read_manifest(source / "manifest.jsonl" if source.is_dir() else source):
        splits.setdefault(str(utterance.extra.get("split") or "all"), []).append(utterance)
    return {name: group for name, group in splits.items() if subsets.wants(name)}
