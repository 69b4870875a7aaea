"""Where the audio of a corpus is, how long it is, and a list of what cannot be used."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from asr import audio
from asr.datasets.manifest import Utterance
from asr.errors import AsrError

# Seconds by which a segment may end after its audio: annotators round, and MP3 lengths are estimates.
_SLOPPY = 0.5
_LONG = 2000  # files from which on waiting deserves a progress bar


def find_audio(name: str, near: Path) -> Path:
    """The file that a corpus at `near` calls `name`, which may be relative to it or to a folder around it."""
    for folder in (near, *near.absolute().parents[:2]):
        if (folder / name).exists():
            return folder / name
    return Path(name)


def measure(splits: dict[str, list[Utterance]], bad: list[str]) -> dict[str, list[Utterance]]:
    """The same splits with durations filled in where they are 0, or cut at the end of the audio.

    An utterance whose audio cannot be opened, or does not reach that far, is left out and adds one line to
    `bad`. Each file is opened once, however many utterances it holds.
    """
    paths = list(dict.fromkeys(utterance.audio for group in splits.values() for utterance in group))
    lengths = dict(zip(paths, _lengths(paths), strict=True))
    good: dict[str, list[Utterance]] = {}
    for split, group in splits.items():
        good[split] = []
        for utterance in group:
            length = lengths[utterance.audio]
            if isinstance(length, AsrError):
                bad.append(str(length))
                continue
            rest = length - utterance.start
            if rest <= 0 or utterance.duration > rest + _SLOPPY:
                end = utterance.start + utterance.duration
                bad.append(
                    f"{utterance.audio}: utterance {utterance.id!r} from {utterance.start:g} to {end:g} s "
                    f"is beyond the end ({length:g} s); check its times"
                )
                continue
            seconds = min(utterance.duration, rest) if utterance.duration else rest
            good[split].append(replace(utterance, duration=round(seconds, 6)))
    return good


def _lengths(paths: list[Path]) -> list[float | AsrError]:
    """Seconds of each file, or what is wrong with it."""
    from rich.console import Console
    from rich.progress import track

    def length(path: Path) -> float | AsrError:
        try:
            return audio.duration(path)
        except AsrError as error:
            return error

    console = Console(stderr=True)
    quiet = len(paths) < _LONG or not console.is_terminal
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:  # twice: threads wait for the disk, too
        results = pool.map(length, paths)
        return list(track(results, "Reading audio", len(paths), console=console, disable=quiet))
