"""Strings of words, joined from recordings of single words: where each word begins is known.

    python benchmarks/strings.py CORPORA/fsdd /tmp/strings --split test --count 150
    python benchmarks/strings.py CORPORA/fsdd /tmp/noisy --split train --ids '_[56]$' --noise CORPORA/noise

Writes wav files, `manifest.jsonl`, and `starts.json`: for each id the second at which each word begins. That
is the first 10 ms that are at most 30 dB below the loudest 10 ms of the word. Words of one speaker are joined
with gaps of 0.02 to 0.6 s. With --noise, a string is mixed with a part of a noise at a ratio in the range of
--snr. Recordings 5 and 6 of the free spoken digits are the dev set of their recipe.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np

from asr import audio
from asr.audio.segmentation import mean_squares
from asr.errors import AsrError
from asr.files import atomic_write

RATE = 16000
FRAME = RATE // 100
BELOW_LOUDEST = 30.0  # dB


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--ids", default="", help="a regular expression that is found in the ids")
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--words", type=int, default=10, help="most words in a string")
    parser.add_argument("--noise", type=Path)
    parser.add_argument("--snr", type=float, nargs=2, default=(0.0, 20.0))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw = np.random.default_rng(args.seed)
    speakers = words_of_speakers(args.corpus, args.split, args.ids)
    noises = [audio.read(p, RATE) for p in noise_files(args.noise)] if args.noise else []
    args.output.mkdir(parents=True, exist_ok=True)
    lines, starts = [], {}
    for number in range(args.count):
        words = speakers[sorted(speakers)[number % len(speakers)]]
        chosen = draw.integers(0, len(words), int(draw.integers(3, args.words + 1)))
        samples, begins = joined([words[i][1] for i in chosen], draw)
        if noises:
            noise = noises[draw.integers(len(noises))]
            samples = mixed(samples, noise, draw.uniform(*args.snr), draw)
        name = f"{number:04}"
        audio.write(args.output / f"{name}.wav", samples, RATE)
        text = " ".join(words[i][0] for i in chosen)
        line = {"id": name, "audio": f"{name}.wav", "text": text, "duration": round(len(samples) / RATE, 3)}
        lines.append(json.dumps(line) + "\n")
        starts[name] = [round(begin, 3) for begin in begins]
    with atomic_write(args.output / "manifest.jsonl") as out:
        out.writelines(lines)
    with atomic_write(args.output / "starts.json") as out:
        json.dump(starts, out)


def words_of_speakers(corpus: Path, split: str, ids: str) -> dict[str, list[tuple[str, Path]]]:
    """Speaker -> text and path of the recordings of one word."""
    found: dict[str, list[tuple[str, Path]]] = {}
    for text in (corpus / "manifest.jsonl").read_text().splitlines():
        line = json.loads(text)
        if line.get("split", split) == split and " " not in line["text"] and re.search(ids, line["id"]):
            found.setdefault(line.get("speaker", ""), []).append((line["text"], corpus / line["audio"]))
    if not found:
        raise SystemExit(str(AsrError(f"{corpus}: no recordings of one word in the split {split}")))
    return found


def noise_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.flac")) if "rir" not in path.name]


def joined(paths: list[Path], draw: np.random.Generator) -> tuple[np.ndarray, list[float]]:
    """Samples (samples,) of recordings with gaps, and the second at which each begins to sound."""
    parts, begins, at = [], [], 0
    for path in paths:
        gap = np.zeros(round(draw.uniform(0.02, 0.6) * RATE), np.float32)
        word = audio.read(path, RATE)
        energy = 10 * np.log10(mean_squares(word, FRAME) + 1e-10)
        first = int(np.argmax(energy >= energy.max() - BELOW_LOUDEST)) * FRAME
        begins.append((at + len(gap) + first) / RATE)
        parts += [gap, word]
        at += len(gap) + len(word)
    return np.concatenate([*parts, np.zeros(RATE // 4, np.float32)]), begins


def mixed(samples: np.ndarray, noise: np.ndarray, snr: float, draw: np.random.Generator) -> np.ndarray:
    """Samples (samples,) with a part of a noise."""
    noise = np.tile(noise, 2 + len(samples) // len(noise))
    first = int(draw.integers(0, len(noise) - len(samples)))
    part = noise[first : first + len(samples)]
    gain = np.sqrt(np.square(samples).mean() / (np.square(part).mean() + 1e-12) / 10 ** (snr / 10))
    found = samples + np.float32(gain) * part
    return found / max(1.0, float(np.abs(found).max()))


if __name__ == "__main__":
    main()
