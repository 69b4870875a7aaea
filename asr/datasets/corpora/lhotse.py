"""Manifests of Lhotse (lhotse.readthedocs.io): a cut set, or a folder with those of several splits.

Lhotse prepares over a hundred corpora: `lhotse prepare CORPUS ...` writes a folder of recordings and
supervisions, from which `asr prepare lhotse` reads all splits in one call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from asr.datasets.corpora.base import ALL, Subsets
from asr.datasets.durations import find_audio
from asr.datasets.manifest import Utterance
from asr.errors import AsrError

_NAME = re.compile(r"(?:(.+?)[-_.])?(cuts|recordings|supervisions)(?:[-_.](.+?))?\.jsonl(?:\.gz)?")


def read_lhotse(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """One utterance for each supervision of each cut. The split of a single cut set is named after the file.

    In a folder, `x_cuts_dev.jsonl.gz` is the split "dev", and so are `x_recordings_dev.jsonl.gz` and
    `x_supervisions_dev.jsonl.gz` together. Where there are several x, their splits are named x_dev.
    A manifest can point to plain cuts of audio files only: a mixed, padded or perturbed cut, one channel of
    several, a command or a URL adds a line to `bad`, as does a cut without text. Raises AsrError where lhotse
    is not installed or cannot read the file.
    """
    try:
        from lhotse import CutSet, load_manifest
    except ImportError:
        raise AsrError(f"{source}: reading cut sets needs lhotse; pip install 'asr[lhotse]'") from None
    found = _manifests(source) if source.is_dir() else {source.name.split(".")[0]: {"cuts": source}}
    splits = {}
    for split, files in found.items():
        if not subsets.wants(split):
            continue
        path = files.get("cuts") or files["supervisions"]
        try:
            if "cuts" in files:
                cuts = CutSet.from_file(path)
            else:
                recordings, supervisions = (load_manifest(files[k]) for k in ("recordings", "supervisions"))
                cuts = CutSet.from_manifests(recordings=recordings, supervisions=supervisions)
            splits[split] = _read(cuts, path, bad, "cuts" in files)
        except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
            raise AsrError(f"{path}: lhotse cannot read it ({error!r}); give a cuts.jsonl.gz") from None
    return splits


def _manifests(folder: Path) -> dict[str, dict[str, Path]]:
    """The files of each split of a folder: its cuts, or its recordings and supervisions."""
    names = {path: found for path in sorted(folder.iterdir()) if (found := _NAME.fullmatch(path.name))}
    several = len({found[1] for found in names.values() if found[3]}) > 1
    splits: dict[str, dict[str, Path]] = {}
    for path, found in names.items():
        split = "_".join(part for part in ((found[1] if several or not found[3] else None), found[3]) if part)
        splits.setdefault(split or "all", {})[found[2]] = path
    for split, files in splits.items():
        if "cuts" not in files and (missing := {"recordings", "supervisions"} - files.keys()):
            there = next(iter(files.values()))
            raise AsrError(f"{there}: no {missing.pop()} of the split {split!r} beside it; copy the file")
    if not splits:
        raise AsrError(f"{folder}: lhotse cannot read it: no cuts_*.jsonl.gz, or recordings and supervisions")
    return splits


def _read(cuts: Iterable[Any], path: Path, bad: list[str], of_cuts: bool) -> list[Utterance]:
    """The utterances of cuts. Cuts of a cut set have useful ids, those made here do not."""
    utterances: list[Utterance] = []
    for cut in cuts:
        if problem := _problem(cut):
            bad.append(f"{path}: cut {cut.id}: {problem}; left out")
        else:
            utterances += _utterances(cut, path.parent, of_cuts)
    return utterances


def _problem(cut: Any) -> str | None:
    """Why a manifest cannot point to this cut, or None."""
    if type(cut).__name__ != "MonoCut" or not cut.has_recording:
        return "not one piece of one recording"
    recording = cut.recording
    if len(recording.sources) != 1 or recording.sources[0].type != "file":
        return "its audio is not one file"
    if recording.num_channels != 1:
        return f"takes channel {cut.channel} of {recording.num_channels}"
    if recording.transforms:
        return "perturbed"
    if not any(supervision.text is not None for supervision in cut.supervisions):
        return "no text"
    return None


def _utterances(cut: Any, folder: Path, of_cuts: bool) -> list[Utterance]:
    """The supervisions of a cut that have a text, each with its own times."""
    audio = find_audio(cut.recording.sources[0].source, folder)
    spoken = [supervision for supervision in cut.supervisions if supervision.text is not None]
    return [
        Utterance(
            cut.id if of_cuts and len(spoken) == 1 else supervision.id,
            audio,
            supervision.text,
            supervision.duration,
            speaker=supervision.speaker,
            lang=supervision.language,
            start=max(0.0, cut.start + supervision.start),
        )
        for supervision in spoken
    ]
