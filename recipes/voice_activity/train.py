"""Train the voice activity detector that ships.

    python recipes/voice_activity/train.py CORPORA asr/audio/voice_activity.safetensors

CORPORA has folders with a `manifest.jsonl` (speech) and a folder `noise`. Speech is labeled by the energy of
the clean recording, then mixed with noise and music at -3 to 40 dB. Part of the noises (`HELD_OUT`), the
corpora kathleen and freeswitch_callie, and all test splits are not used, so that the benchmark can.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from asr import audio
from asr.audio.segmentation import mean_squares
from asr.audio.voice_activity import FRAME, VoiceActivityNetwork, log_mel, relative

RATE = 16000
SECONDS = 8
SPEECH = {
    "speechocean762": 110, "common_voice_60": 220, "aishell_sample": 20, "grid_s1": 20, "asterisk_en": 30,
    "asterisk_en_GB": 20, "fsdd": 60, "barista": 25, "matthes": 15,
}  # fmt: skip
HELD_OUT = ("running_tap", "doing_the_dishes", "kitchen", "white_noise", "noise4", "noise5", "dude_miaowing")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpora", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--clips", type=int, default=1600)
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()
    draw = np.random.default_rng(0)
    torch.manual_seed(0)
    speech = [s for name, count in SPEECH.items() for s in read_speech(args.corpora / name, count)]
    noises = [
        audio.read(path, RATE)
        for path in sorted((args.corpora / "noise").glob("*.flac"))
        if "rir" not in path.name and not any(name in path.name for name in HELD_OUT)
    ]
    print(f"{len(speech)} utterances, {len(noises)} noises", flush=True)
    clips = [make_clip(speech, noises, draw) for _ in range(args.clips)]
    energies = torch.cat([energy for energy, _ in clips])
    labels = torch.stack([label for _, label in clips])
    print(f"{len(clips)} clips, {labels.clamp(min=0).mean():.2f} speech", flush=True)
    network = train(energies, labels, args.epochs)
    weights = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, args.output)


def read_speech(folder: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Some utterances of a corpus, without its test split: samples, and 1 for each frame with speech."""
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line.get("split", "train") != "test"]
    random.Random(0).shuffle(lines)
    found = []
    for line in lines[:count]:
        samples = audio.read(folder / line["audio"], RATE)[: 12 * RATE]
        found.append((samples, clean_speech(samples)))
    return found


def clean_speech(samples: np.ndarray) -> np.ndarray:
    """1.0 for each frame of a clean recording that is speech, by its energy; short gaps are speech too."""
    energy = 10 * np.log10(mean_squares(samples, round(FRAME * RATE)) + 1e-10)
    floor = np.percentile(energy, 5)
    loud = energy > max(np.percentile(energy, 95) - 28, min(floor + 8, np.percentile(energy, 95) - 12))
    gap = 8  # frames
    closed = np.convolve(np.pad(loud, gap), np.ones(2 * gap + 1), "valid") > 0  # wider by the gap
    opened = np.convolve(np.pad(~closed, gap, constant_values=True), np.ones(2 * gap + 1), "valid") > 0
    return (~opened | loud).astype(np.float32)


def make_clip(speech: list, noises: list, draw: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-mel energies (1, BANDS, T) of a clip, and its labels (T,): 1 speech, 0 none."""
    size = SECONDS * RATE
    hop = round(FRAME * RATE)
    voice, label = np.zeros(size, np.float32), np.zeros(size // hop, np.float32)
    background = make_noise(noises, size, draw)
    if draw.random() < 0.7:
        at = int(draw.integers(0, 100)) if draw.random() < 0.7 else 0  # frames
        while at < len(label) - 20:
            samples, spoken = speech[draw.integers(len(speech))]
            if draw.random() < 0.3:  # a tight cut, as of single words
                first = int(draw.integers(0, len(spoken)))
                samples, spoken = samples[first * hop :], spoken[first:]
            if draw.random() < 0.3:
                last = int(draw.integers(10, 80))
                samples, spoken = samples[: last * hop], spoken[:last]
            count = min(len(spoken), len(label) - at, len(samples) // hop)
            level = np.sqrt(np.square(samples).mean()) + 1e-6
            voice[at * hop : (at + count) * hop] = samples[: count * hop] * (0.05 / level)
            label[at : at + count] = spoken[:count]
            at += count + int(draw.integers(0, 120))
        snr = draw.uniform(-3, 40)
    else:
        snr = 0.0
    mixed = voice + background * np.float32(0.05 * 10 ** (-snr / 20))
    mixed = color(mixed, draw) if draw.random() < 0.5 else mixed
    mixed = mixed * np.float32(10 ** (draw.uniform(-45, 10) / 20))
    mixed = np.clip(mixed, -1, 1) + np.float32(2e-5) * draw.standard_normal(size).astype(np.float32) * (
        draw.random() < 0.5
    )
    if draw.random() < 0.3:  # digital silence around, as of cut files
        mixed[: int(draw.integers(0, 2 * RATE))] = 0
        mixed[size - int(draw.integers(1, 2 * RATE)) :] = 0
        silent = mean_squares(mixed, hop) == 0
        label = label * ~silent
    return log_mel(mixed.astype(np.float32), RATE), torch.from_numpy(label)


def make_noise(noises: list, size: int, draw: np.random.Generator) -> np.ndarray:
    """A noise or music with a mean square of 1: (size,)."""
    kind = draw.random()
    if kind < 0.35:
        noise = noises[draw.integers(len(noises))]
        noise = np.tile(noise, size // len(noise) + 2)
        first = int(draw.integers(0, len(noise) - size))
        found = noise[first : first + size]
    elif kind < 0.6:
        found = color(draw.standard_normal(size), draw)
        if draw.random() < 0.6:
            found = found * modulation(size, draw)
    elif kind < 0.9:
        found = music(size, draw)
    else:
        found = np.zeros(size)
        for _ in range(int(draw.integers(3, 40))):  # clicks and knocks
            at, length = int(draw.integers(0, size - 4000)), int(draw.integers(20, 4000))
            found[at : at + length] += color(draw.standard_normal(length), draw) * np.exp(
                -5 * np.arange(length) / length
            )
    return (found / (np.sqrt(np.square(found).mean()) + 1e-9)).astype(np.float32)


def color(samples: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """The samples with a random smooth spectrum: a slope and some resonances."""
    spectrum = np.fft.rfft(samples)
    frequency = np.linspace(0, 1, len(spectrum))
    gain = draw.uniform(-30, 10) * frequency
    for _ in range(int(draw.integers(0, 4))):
        width = draw.uniform(0.01, 0.2)
        gain += draw.uniform(-15, 15) * np.exp(-np.square((frequency - draw.random()) / width))
    return np.fft.irfft(spectrum * 10 ** (gain / 20), len(samples))


def modulation(size: int, draw: np.random.Generator) -> np.ndarray:
    """A slowly varying gain (size,), up to 6 changes a second."""
    points = max(2, int(size / RATE * draw.uniform(0.2, 6)))
    decibels = draw.uniform(0, 12) * draw.standard_normal(points)
    return 10 ** (np.interp(np.linspace(0, points - 1, size), np.arange(points), decibels) / 20)


def music(size: int, draw: np.random.Generator) -> np.ndarray:
    """Notes and chords, held or struck: harmonic tones of constant pitch, sometimes with vibrato."""
    found, at = np.zeros(size), 0
    notes, held = int(draw.integers(1, 5)), draw.random() < 0.3
    rolloff, decay = draw.uniform(0.3, 3), draw.uniform(0, 6)
    while at < size:
        length = size if held else int(RATE * draw.uniform(0.1, 1.5))
        time = np.arange(min(length, size - at)) / RATE
        chord = np.zeros(len(time))
        for _ in range(notes):
            pitch = 55 * 2 ** (draw.integers(0, 60) / 12)
            vibrato = draw.choice([0, 0, 0.003]) * np.sin(2 * np.pi * 5 * time) / (2 * np.pi * 5)
            for harmonic in range(1, 1 + int(draw.integers(1, 9))):
                if pitch * harmonic < 7000:
                    chord += harmonic**-rolloff * np.sin(2 * np.pi * pitch * harmonic * (time + vibrato))
        edge = np.minimum(1, np.minimum(time, time[-1] - time) / 0.01 + 0.01)
        found[at : at + len(time)] += chord * edge * np.exp(-decay * time)
        at += len(time) + int(RATE * draw.choice([0, 0, 0.1, 0.4]))
    return found


def train(energies: torch.Tensor, labels: torch.Tensor, epochs: int) -> VoiceActivityNetwork:
    """The network after `epochs` passes in random order. Every clip is shortened at random."""
    network = VoiceActivityNetwork()
    batch = 24
    steps = epochs * (len(labels) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(labels)).split(batch)[: len(labels) // batch]:
            size = int(torch.randint(25, labels.size(1), ())) if torch.rand(()) < 0.5 else labels.size(1)
            first = int(torch.randint(0, labels.size(1) - size + 1, ()))
            part = slice(first, first + size)
            logits = network(relative(energies[rows][..., part]))
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels[rows][:, part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        print(f"epoch {epoch + 1}: loss {total / (len(labels) // batch):.4f}", flush=True)
    return network


if __name__ == "__main__":
    main()
