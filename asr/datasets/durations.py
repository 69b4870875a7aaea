"""Find the audio files of a corpus and measure them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from asr import audio
from asr.datasets.manifest import Utterance
from asr.errors import AsrError
from asr.files import printable

# Seconds by which a segment may end after its audio: annotators round times, and MP3 lengths are estimates.
_TOLERANCE = 0.5
_MANY = 2000  # from this number of files on, a progress bar is shown


def find_audio(name: str, near: Path) -> Path:
    """The file `name` of a corpus at `near`, relative to `near` or to one of the two folders above it."""
    for folder in (near, *near.absolute().parents[:2]):
        if os.path.exists(folder / name):  # noqa: PTH110  Path's method fails for names that are too long
            return folder / name
    return Path(name)


def measure(splits: dict[str, list[Utterance]], bad: list[str]) -> dict[str, list[Utterance]]:
    """The same splits with all durations known, none of them longer than the audio.

    An utterance whose audio cannot be opened, or is too short for its times, is left out and adds one line to
    `bad`. Each file is opened once, even if it contains many utterances.
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
            seconds = min(utterance.duration, rest) if utterance.duration else rest
            if rest <= 0 or seconds + _TOLERANCE < (utterance.duration or 0.0):
                end = utterance.start + (utterance.duration or 0.0)
                bad.append(
                    f"{utterance.audio}: utterance {utterance.id!r} from {utterance.start:g} to {end:g} s "
                    f"ends after the recording ({length:g} s); check its times"
                )
                continue
            good[split].append(replace(utterance, duration=round(seconds, 6)))
    return good


def _lengths(paths: list[Path]) -> list[float | AsrError]:
    """Seconds of each file, or the error."""
    from rich.console import Console
    from rich.progress import track

    def length(path: Path) -> float | AsrError:
        try:
            str(path).encode()
            return audio.duration(path)
        except UnicodeEncodeError:
            return AsrError(
                f"{printable(path)}: the file name is not UTF-8, but a manifest needs UTF-8; rename the file"
            )
        except AsrError as error:
            return error

    console = Console(stderr=True)
    quiet = len(paths) < _MANY or not console.is_terminal
    with ThreadPoolExecutor(
        2 * (os.cpu_count() or 1)
    ) as pool:  # two per core, because threads wait for the disk
        results = pool.map(length, paths)
        return list(track(results, "Reading audio", len(paths), console=console, disable=quiet))
