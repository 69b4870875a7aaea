"""Manifests of Lhotse (lhotse.readthedocs.io): a cut set, or a folder with those of several splits.

Lhotse prepares over a hundred corpora: `lhotse prepare CORPUS ...` writes a folder of recordings and
supervisions, from which `asr prepare lhotse` reads all splits in one call.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from asr.datasets.corpora.base import ALL, Subsets, language_code
from asr.datasets.durations import find_audio
from asr.datasets.manifest import Utterance
from asr.errors import AsrError

_NAME = re.compile(r"(?:(.+?)[-_.])?(cuts|recordings|supervisions)(?:[-_.](.+?))?\.jsonl(?:\.gz)?")


def read_lhotse(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """One utterance for each supervision of each cut. The split of a single cut set is named after the file.

    In a folder, `x_cuts_dev.jsonl.gz` is the split "dev", and so are `x_recordings_dev.jsonl.gz` and
    `x_supervisions_dev.jsonl.gz` together. Where there are several x, their splits are named x_dev.
    A manifest can point to plain cuts of audio files only: a mixed, padded or perturbed cut, one channel of
    a file with several, a command or a URL adds a line to `bad`, as does a cut without text. A supervision of
    several channels that are files of their own is read from the first. Gender and custom values are kept.
    Raises AsrError where lhotse is not installed or cannot read the file, and for Lhotse Shar.
    """
    try:
        from lhotse import CutSet, load_manifest
    except ImportError:
        raise AsrError(f"{source}: reading cut sets needs lhotse; pip install lhotse") from None
    if source.is_dir() and any(source.glob("recording.*.tar")):
        raise AsrError(
            f"{source}: this is a Lhotse Shar, and a manifest cannot point to its recordings; write them "
            "to files first "
            "(CutSet.from_shar and save_audios in Python)"
        )
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
            raise AsrError(
                f"{there}: the split {split!r} needs a file of {missing.pop()} beside it; copy this file"
            )
    if not splits:
        raise AsrError(
            f"{folder}: lhotse cannot read it; give a folder with cuts_*.jsonl.gz, or "
            "with recordings and supervisions"
        )
    return splits


def _read(cuts: Iterable[Any], path: Path, bad: list[str], of_cuts: bool) -> list[Utterance]:
    """The utterances of cuts. The ids of a given cut set are useful, and the ids of cuts that are made here
    are not."""
    utterances: list[Utterance] = []
    for cut in itertools.chain.from_iterable(map(_parts, cuts)):
        if problem := _problem(cut):
            bad.append(f"{path}: cut {cut.id}: {problem}; left out")
        else:
            utterances += _utterances(cut, path.parent, of_cuts)
    return utterances


def _parts(cut: Any) -> list[Any]:
    """A cut of several channels as cuts of one, each with the supervisions whose first channel it is."""
    if type(cut).__name__ != "MultiCut":
        return [cut]
    channels = {s.id: s.channel if isinstance(s.channel, int) else min(s.channel) for s in cut.supervisions}
    parts = []
    for part in cut.to_mono():
        part.supervisions = [s for s in part.supervisions if channels[s.id] == part.channel]
        if part.supervisions:
            parts.append(part)
    return parts or [cut]


def _source(cut: Any) -> Any:
    """The only source with the channel of a cut; None if there is none, or several."""
    found = [source for source in cut.recording.sources if cut.channel in source.channels]
    return found[0] if len(found) == 1 else None


def _problem(cut: Any) -> str | None:
    """Why a manifest cannot point to this cut, or None."""
    if type(cut).__name__ != "MonoCut" or not cut.has_recording:
        return "not one piece of one recording"
    source = _source(cut)
    if source is None or source.type != "file":
        return "its audio is not one file"
    if len(source.channels) != 1:
        return f"takes channel {cut.channel} of {len(source.channels)}"
    if cut.recording.transforms:
        return "perturbed"
    if not any(supervision.text is not None for supervision in cut.supervisions):
        return "no text"
    return None


def _utterances(cut: Any, folder: Path, of_cuts: bool) -> list[Utterance]:
    """The supervisions of a cut that have a text, each with its own times."""
    audio = find_audio(_source(cut).source, folder)
    spoken = [supervision for supervision in cut.supervisions if supervision.text is not None]
    return [
        Utterance(
            cut.id if of_cuts and len(spoken) == 1 else supervision.id,
            audio,
            supervision.text,
            supervision.duration,
            speaker=supervision.speaker,
            lang=language_code(supervision.language),
            start=max(0.0, cut.start + supervision.start),
            extra=_extra(supervision),
        )
        for supervision in spoken
    ]


def _extra(supervision: Any) -> dict[str, Any]:
    """The gender and those custom values that JSON can hold."""
    custom = {k: v for k, v in (supervision.custom or {}).items() if isinstance(v, str | int | float)}
    return custom | ({"gender": supervision.gender} if supervision.gender else {})
