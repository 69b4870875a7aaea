"""A Lhotse cut set, cuts.jsonl or cuts.jsonl.gz (lhotse.readthedocs.io)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asr.datasets.durations import find_audio
from asr.datasets.manifest import Utterance
from asr.errors import AsrError


def read_lhotse(source: Path, bad: list[str]) -> dict[str, list[Utterance]]:
    """One utterance for each supervision of each cut; the split is named after the file.

    A manifest can point to plain cuts of audio files only: a mixed, padded or perturbed cut, one channel of
    several, a command or a URL adds a line to `bad`, as does a cut without text. Raises AsrError where lhotse
    is not installed or cannot read the file.
    """
    try:
        from lhotse import CutSet
    except ImportError:
        raise AsrError(f"{source}: reading cut sets needs lhotse; pip install 'asr[lhotse]'") from None
    utterances: list[Utterance] = []
    try:
        for cut in CutSet.from_file(source):
            if problem := _problem(cut):
                bad.append(f"{source}: cut {cut.id}: {problem}; left out")
            else:
                utterances += _utterances(cut, source.parent)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise AsrError(f"{source}: lhotse cannot read it ({error!r}); give a cuts.jsonl.gz") from None
    return {source.name.split(".")[0]: utterances}


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


def _utterances(cut: Any, folder: Path) -> list[Utterance]:
    """The supervisions of a cut that have a text, each with its own times."""
    audio = find_audio(cut.recording.sources[0].source, folder)
    spoken = [supervision for supervision in cut.supervisions if supervision.text is not None]
    return [
        Utterance(
            cut.id if len(spoken) == 1 else supervision.id,
            audio,
            supervision.text,
            supervision.duration,
            speaker=supervision.speaker,
            lang=supervision.language,
            start=max(0.0, cut.start + supervision.start),
        )
        for supervision in spoken
    ]
