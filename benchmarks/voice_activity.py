"""Voice activity detectors side by side: missed speech, and false alarms on other sound.

    python benchmarks/voice_activity.py CORPORA --model english

CORPORA has the folders kathleen, speechocean762 (test split) and freeswitch_callie, each with a manifest, and
`noise`. Speech is labeled by the energy of the clean recording and mixed with each sound at 0 to 20 dB. All
detectors get the same audio. A threshold of each is set so that it misses 2 % of the speech at 20 dB of the
first third of the clips; the rest is the test. silero-vad is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr import audio
from asr.audio.segmentation import mean_squares
from asr.audio.voice_activity import FRAME, SMOOTH, THRESHOLD, speech_probabilities
from asr.model_folder import load_model

RATE = 16000
HOP = round(FRAME * RATE)
CORPORA = ("kathleen", "speechocean762", "freeswitch_callie")
SNRS = (0, 10, 20)
SOUND_SECONDS = 12
Detector = Callable[[np.ndarray], np.ndarray]  # samples -> a score of each frame, higher for speech


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--model", default="english", help="a model folder with a CTC head")
    parser.add_argument("--clips", type=int, default=8, help="clips of each corpus")
    args = parser.parse_args()
    sounds = all_sounds(args.corpora / "noise")
    clips = [clip for name in CORPORA for clip in speech_clips(args.corpora / name, args.clips)]
    detectors = all_detectors(args.model)
    print(f"{len(clips)} clips, {sum(len(s) for s, _ in clips) / RATE:.0f} s; {len(sounds)} sounds")
    alarms: dict[str, dict[str, float]] = {}
    misses: dict[str, dict[str, float]] = {}
    for name, detector in detectors.items():
        began = time.process_time()
        results: dict[Any, Any] = {}
        for key, sound in sounds.items():
            results[key] = smoothed(detector(sound))
            for snr in SNRS:
                results[key, snr] = [
                    smoothed(detector(mix(samples, sound, snr, seed)))
                    for seed, (samples, _) in enumerate(clips)
                ]
        seconds = time.process_time() - began
        tuning = [scores[label[: len(scores)]] for scores, label in pairs(results, clips, sounds, 20, 0)]
        threshold = float(np.quantile(np.concatenate(tuning), 0.02))
        if name == "network, as shipped":
            threshold = THRESHOLD
        alarms[name] = {key: float((results[key] >= threshold).mean()) for key in sounds}
        misses[name] = {}
        for snr in SNRS:
            tested = [
                s[label[: len(s)]] for rest in (1, 2) for s, label in pairs(results, clips, sounds, snr, rest)
            ]
            misses[name][f"speech at {snr} dB"] = float((np.concatenate(tested) < threshold).mean())
        print(f"{name}: threshold {threshold:.3g}, {seconds:.1f} s of CPU", file=sys.stderr, flush=True)
    table("missed speech, % of frames", misses)
    table("false alarms, % of frames", alarms)


def pairs(
    results: dict, clips: list, sounds: dict, snr: int, rest: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scores and labels of the clips whose number has this rest when divided by 3."""
    return [
        (scores, clips[i][1]) for key in sounds for i, scores in enumerate(results[key, snr]) if i % 3 == rest
    ]


def speech_clips(folder: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Clips of a corpus, its test split if it has one: samples, and whether each frame has speech."""
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    lines = [each for each in lines if each.get("split", "test") == "test" and 1.5 < each["duration"] < 8]
    random.Random(1).shuffle(lines)
    clips = []
    for line in lines[:count]:
        samples = audio.read(folder / line["audio"], RATE)
        energy = 10 * np.log10(mean_squares(samples, HOP) + 1e-10)
        clips.append((samples, energy > np.percentile(energy, 95) - 25))
    return clips


def all_sounds(folder: Path) -> dict[str, np.ndarray]:
    """Sounds without speech, 12 s of each: the noises, and sounds made here."""
    sounds = {}
    for path in sorted(folder.glob("*.flac")):
        if "rir" not in path.name:
            sound = audio.read(path, RATE)
            sounds[path.stem.split("__")[-1]] = np.tile(sound, 1 + SOUND_SECONDS * RATE // len(sound))
    draw, time_ = np.random.default_rng(0), np.arange(SOUND_SECONDS * RATE) / RATE
    sounds["white noise, made"] = draw.standard_normal(len(time_))
    sounds["tone"] = np.sin(2 * np.pi * 440 * time_)
    sounds["chords"] = np.sum([chord(time_, 0.5, draw) for _ in range(3)], axis=0)
    sounds["melody"] = chord(time_, 0.25, draw)
    return {
        name: (0.05 * sound[: SOUND_SECONDS * RATE] / np.sqrt(np.square(sound).mean())).astype(np.float32)
        for name, sound in sounds.items()
    } | {"silence": np.zeros(SOUND_SECONDS * RATE, np.float32)}


def chord(time_: np.ndarray, length: float, draw: np.random.Generator) -> np.ndarray:
    """A voice of notes with harmonics that fade, each `length` seconds long."""
    pitch = 110 * 2 ** (draw.integers(0, 36, 1000) / 12)
    note = (time_ / length).astype(int)
    fade = np.exp(-3 * (time_ / length - note))
    tones = [fade * np.sin(2 * np.pi * h * pitch[note % len(pitch)] * time_) / h for h in range(1, 6)]
    return np.sum(tones, axis=0)


def mix(samples: np.ndarray, sound: np.ndarray, snr: float, seed: int) -> np.ndarray:
    """Speech with a part of a sound, at a ratio of their mean squares in dB."""
    sound = np.tile(sound, 1 + len(samples) // len(sound))
    first = int(np.random.default_rng(seed).integers(0, len(sound) - len(samples) + 1))
    noise = sound[first : first + len(samples)]
    power = np.square(noise).mean()
    gain = np.sqrt(np.square(samples).mean() / power / 10 ** (snr / 10)) if power else 0.0
    return (samples + gain * noise).astype(np.float32)


def smoothed(scores: np.ndarray) -> np.ndarray:
    return np.convolve(scores, np.ones(SMOOTH) / SMOOTH, "same")


def energy_detector(samples: np.ndarray) -> np.ndarray:
    """dB above an adaptive floor (the 10th percentile of 2 s on each side), lowered for flat spectra."""
    decibels = 10 * np.log10(mean_squares(samples, HOP) + 1e-10)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(decibels, 100, mode="edge"), 201)
    padded = np.pad(samples, (0, -len(samples) % HOP)).reshape(-1, HOP)
    power = np.square(np.abs(np.fft.rfft(padded * np.hanning(HOP)))) + 1e-12
    flatness = np.exp(np.log(power).mean(1)) / power.mean(1)
    return decibels - np.percentile(around, 10, axis=1) - 10 * flatness


def ctc_detector(model: str) -> Detector:
    """1 minus CTC's probability of the blank, the highest of half a second: speech is not blank for long."""
    bundle: Any = load_model(model, "cpu")

    @torch.inference_mode()
    def detect(samples: np.ndarray) -> np.ndarray:
        waveforms = torch.from_numpy(samples).unsqueeze(0)
        memory = bundle.network.encode(*bundle.features(waveforms, torch.tensor([len(samples)])))
        blank = bundle.network.ctc(memory)[0, :, bundle.special.blank].exp().numpy()
        frames = -(-len(samples) // HOP)
        spread = (1 - blank)[np.minimum(np.arange(frames) * len(blank) // frames, len(blank) - 1)]
        return np.lib.stride_tricks.sliding_window_view(np.pad(spread, 12), 25).max(1)

    return detect


def silero_detector() -> Detector:
    """silero-vad, in windows of 32 ms. Raises ImportError where it is not installed."""
    from silero_vad import load_silero_vad

    model = load_silero_vad()

    def detect(samples: np.ndarray) -> np.ndarray:
        model.reset_states()
        found = model.audio_forward(torch.from_numpy(samples).unsqueeze(0), sr=RATE)[0].numpy()
        frames = -(-len(samples) // HOP)
        return found[np.minimum(np.arange(frames) * HOP // 512, len(found) - 1)]

    return detect


def all_detectors(model: str) -> dict[str, Detector]:
    network = lambda samples: speech_probabilities(samples, RATE)  # noqa: E731
    detectors: dict[str, Detector] = {
        "energy": energy_detector,
        f"CTC blanks, {model}": ctc_detector(model),
        "network": network,
        "network, as shipped": network,
    }
    try:
        detectors["silero-vad"] = silero_detector()
    except ImportError as error:
        print(f"without silero-vad ({error})", file=sys.stderr)
    return detectors


def table(title: str, columns: dict[str, dict[str, float]]) -> None:
    """Print a table in Markdown, in percent."""
    names = list(columns)
    print(f"\n| {title} | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for row in next(iter(columns.values())):
        print(f"| {row} | " + " | ".join(f"{100 * columns[name][row]:.1f}" for name in names) + " |")


if __name__ == "__main__":
    main()
