"""Statistics of manifests, and what is wrong with them: texts, speakers and splits, and every recording."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from asr import audio
from asr.datasets.loading import TOLERANCE
from asr.datasets.manifest import Utterance, read_manifest
from asr.errors import AsrError
from asr.threads import cores
from asr.tokenizers import Tokenizer, normalize_text

_FULL_SCALE = (
    0.985  # of the largest sample value; resampling and lossy formats change clipped samples a little
)
_CLIPPED = 10  # samples at full scale, in runs of at least three, from which on a recording counts as clipped
_SILENT = -60.0  # dBFS; the level of the loudest 20 ms of a silent recording is below
_QUANTILES = {"shortest": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "longest": 1.0}


@dataclass
class ManifestCheck:
    """The statistics of one manifest. Durations and rates are of the utterances that have them."""

    path: Path
    utterances: list[Utterance]
    characters: Counter[str] = field(default_factory=Counter)
    durations: list[float] = field(default_factory=list)  # seconds
    rates: list[float] = field(default_factory=list)  # characters of the text in a second

    @property
    def speakers(self) -> set[str]:
        """The names of the speakers that are given."""
        return {u.speaker for u in self.utterances if u.speaker is not None}

    @property
    def quantiles(self) -> dict[str, float]:
        """The distribution of the durations, in seconds."""
        if not self.durations:
            return {}
        return {name: round(float(np.quantile(self.durations, q)), 3) for name, q in _QUANTILES.items()}


@dataclass
class DataCheck:
    """All manifests, and the problems: their kind, and a line for each."""

    manifests: list[ManifestCheck]
    problems: dict[str, list[str]]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "manifests": [
                {
                    "path": str(part.path),
                    "utterances": len(part.utterances),
                    "hours": round(sum(part.durations) / 3600, 4),
                    "speakers": len(part.speakers),
                    "durations": part.quantiles,
                    "characters": dict(part.characters.most_common()),
                }
                for part in self.manifests
            ],
            "problems": self.problems,
        }


@dataclass(frozen=True)
class Limits:
    """What a model can write, and how many tokens CTC can align with a recording of some seconds."""

    tokenizer: Tokenizer
    states: Callable[[float], int] | None  # encoder states for seconds; None for a model without CTC


def check_data(paths: Sequence[Path], limits: Limits | None = None, recordings: bool = True) -> DataCheck:
    """Read the manifests and, unless `recordings` is false, every recording, on all cores.

    Raises AsrError as `read_manifest` does, and for the same manifest twice.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise AsrError("the same manifest is given twice; leave one out")
    parts = [_texts(ManifestCheck(path, read_manifest(path))) for path in paths]
    problems: dict[str, list[str]] = {}
    _check_texts(parts, problems)
    _check_splits(parts, problems)
    if limits is not None:
        _check_limits(parts, limits, problems)
    if recordings:
        _check_recordings(parts, problems)
    return DataCheck(parts, problems)


def _texts(part: ManifestCheck) -> ManifestCheck:
    for utterance in part.utterances:
        text = normalize_text(utterance.text or "")
        part.characters.update(text)
        if utterance.duration:
            part.durations.append(utterance.duration)
            if text:
                part.rates.append(len(text) / utterance.duration)
    return part


def _check_texts(parts: list[ManifestCheck], problems: dict[str, list[str]]) -> None:
    for part in parts:
        for utterance in part.utterances:
            place = f"{part.path}: {utterance.id}"
            if utterance.text is None and utterance.phonemes is None:
                problems.setdefault("no text", []).append(place)
            if utterance.duration is None:
                problems.setdefault("no duration", []).append(place)


def _check_splits(parts: list[ManifestCheck], problems: dict[str, list[str]]) -> None:
    """Ids, recordings and speakers that more than one manifest has."""
    of_kind: dict[str, Callable[[Utterance], str | None]] = {
        "id in several manifests": lambda u: u.id,
        "piece of a recording in several manifests": lambda u: f"{u.audio.resolve()} from {u.start:g} s",
        "speaker in several manifests": lambda u: u.speaker,
    }
    for kind, key in of_kind.items():
        first: dict[str, Path] = {}
        for part in parts:
            for name in dict.fromkeys(key(u) for u in part.utterances):
                if name is not None and first.setdefault(name, part.path) != part.path:
                    problems.setdefault(kind, []).append(f"{name}: {first[name]} and {part.path}")


def _check_limits(parts: list[ManifestCheck], limits: Limits, problems: dict[str, list[str]]) -> None:
    """Characters that the model lacks, by their frequency, and texts that CTC cannot align."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part.characters)
        for utterance in part.utterances:
            if limits.states is None or not utterance.duration or not utterance.text:
                continue
            tokens = limits.tokenizer.encode(utterance.text)
            needed = len(tokens) + sum(a == b for a, b in pairwise(tokens))
            if needed > (states := limits.states(utterance.duration)):
                line = f"{part.path}: {utterance.id}: {needed} states needed, {states} there"
                problems.setdefault("text longer than CTC allows", []).append(line)
    for character, count in total.most_common():
        if character in limits.tokenizer.unknown(f"|{character}|"):
            line = f"{character!r} (U+{ord(character):04X}): {count} times"
            problems.setdefault("character that the model lacks", []).append(line)


def _check_recordings(parts: list[ManifestCheck], problems: dict[str, list[str]]) -> None:
    from rich.console import Console
    from rich.progress import track

    pairs = [(part.path, utterance) for part in parts for utterance in part.utterances]
    console = Console(stderr=True)
    with ThreadPoolExecutor(cores()) as pool:
        found = pool.map(lambda pair: _recording(pair[1]), pairs)
        results = track(found, "Reading audio", len(pairs), console=console, disable=not console.is_terminal)
        first: dict[bytes, tuple[Path, str]] = {}
        for (path, utterance), (digest, faults) in zip(pairs, results, strict=True):
            for kind, detail in faults.items():
                problems.setdefault(kind, []).append(f"{path}: {utterance.id}: {detail}")
            if digest and (other := first.setdefault(digest, (path, utterance.id))) != (path, utterance.id):
                line = f"{path}: {utterance.id} has the samples of {other[1]} ({other[0]})"
                problems.setdefault("equal recordings", []).append(line)


def _recording(utterance: Utterance) -> tuple[bytes, dict[str, str]]:
    """A digest of the samples, and the faults of one recording, at its own sample rate."""
    try:
        rate = audio.sample_rate(utterance.audio)
        samples = audio.read(utterance.audio, rate, utterance.start, utterance.duration)
    except AsrError as error:
        return b"", {"broken recording": str(error)}
    faults = {}
    seconds = len(samples) / rate
    missing = (utterance.duration or seconds) - seconds
    if missing > TOLERANCE[0] + TOLERANCE[1] * (utterance.duration or 0.0):
        faults["recording shorter than its duration"] = f"{seconds:.2f} of {utterance.duration:.2f} s"
    if (clipped := clipped_samples(samples)) >= _CLIPPED:
        faults["clipped recording"] = f"{clipped} samples"
    if (level := loudest(samples, rate)) < _SILENT:
        faults["silent recording"] = f"{level:.0f} dBFS at most"
    return hashlib.blake2b(samples.tobytes(), digest_size=16).digest(), faults


def clipped_samples(samples: np.ndarray) -> int:
    """The number of samples (n,) at full scale in runs of at least three of one sign."""
    total = 0
    for sign in (1, -1):
        full = np.concatenate([[False], sign * samples >= _FULL_SCALE, [False]])
        edges = np.flatnonzero(full[1:] != full[:-1])
        runs = edges[1::2] - edges[::2]
        total += int(runs[runs >= 3].sum())
    return total


def loudest(samples: np.ndarray, rate: int) -> float:
    """The level of the loudest 20 ms of samples (n,), in dBFS (RMS); -inf for digital silence."""
    frame = max(1, min(len(samples), round(0.02 * rate)))
    whole = samples[: len(samples) // frame * frame].reshape(-1, frame)
    power = float(np.mean(whole**2, axis=1).max())
    return 10 * math.log10(power) if power else -math.inf


def model_limits(path: Path) -> Limits:
    """What the model of a folder, or one that ships, can write and align. Raises AsrError as `load_model`."""
    import torch

    from asr.model.interfaces import HasCTC
    from asr.model_folder import load_model

    bundle = load_model(path, "cpu")
    features, network, rate = bundle.features, bundle.network, bundle.config.features.sample_rate
    if not isinstance(bundle.network, HasCTC):
        return Limits(bundle.tokenizer, None)

    def states(seconds: float) -> int:  # rounded up once; patches of a last, partial time may be more
        frames = int(features.frames(torch.tensor([round(seconds * rate)])))
        return math.ceil(frames / network.frames_per_state)

    return Limits(bundle.tokenizer, states)


def printable_character(character: str) -> str:
    """A character for a table; a code for those that cannot be seen."""
    return character if re.match(r"[^\W\d_]|[!-~]", character) else f"U+{ord(character):04X}"
