"""What Whisper gains by shorter windows, batches and drafts over one 30-second window after the other.

    python benchmarks/public_windows.py MANIFEST [--shape tiny] [--seconds 60] [--rate 4] [--threads 1]
        [--large small] [--agreement 0.7 0.9]

The weights are random, so the numbers of tokens are given: `--rate` for each second of audio that is decoded.
Features, encoder and decoder are timed together, in processor time.

Short recordings are the first recordings of MANIFEST, `--seconds` in sum. The long recording is all of them
joined. A recording is either cut into windows of exactly 30 s, as by faster-whisper, or at silence, without
what the voice activity detector leaves out.

For drafts, one window is decoded by the model `--large`. The model `--shape` writes the drafts at its real
cost, but its tokens are those of the large model with the probability `--agreement`, because random weights
never agree.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from public_folder import SHAPES, write_folder
from public_models import forbid_end, without_guard

from asr.audio import read, segments
from asr.audio.voice_activity import with_speech
from asr.decoding import DecodingOptions, greedy
from asr.model_folder import Bundle
from asr.public.importing import read_model
from asr.public.source import Source
from asr.transcription.inputs import find_inputs

RATE = 16000
WINDOW = 30 * RATE
BATCH_SECONDS = 60.0  # as `asr transcribe` on a CPU


class Drafts:
    """The decoder of a small model whose best tokens are known ones, with a probability."""

    def __init__(self, network: Any, known: Sequence[int], prompt_size: int, agreement: float) -> None:
        self.start = network.start
        self._network, self._known, self._prompt_size = network, known, prompt_size
        self._agrees = np.random.default_rng(0).random(len(known)) < agreement

    def forward_cached(self, tokens: torch.Tensor, state: Any, starts: torch.Tensor) -> torch.Tensor:
        """As `CachedForward`, for one row."""
        log_probs: torch.Tensor = self._network.forward_cached(tokens, state, starts)
        for i in range(tokens.size(1)):
            place = int(starts[0]) + i + 1 - self._prompt_size  # of the token that follows
            if 0 <= place < len(self._known):
                best = self._known[place] if self._agrees[place] else self._known[place] - 1
                log_probs[0, i, best] = 0.0
        return log_probs


@torch.inference_mode()
def transcribe(bundle: Bundle[Any], pieces: Sequence[np.ndarray], batch_seconds: float, rate: float) -> int:
    """Decode pieces in batches of so many padded seconds; returns the number of decoder steps."""
    special, steps = forbid_end(bundle), 0
    ordered = sorted(pieces, key=len, reverse=True)
    while ordered:
        padded = int(bundle.features.frames(torch.tensor([len(ordered[0])]))) * 0.01
        count = max(1, int(batch_seconds / padded))
        batch, ordered = ordered[:count], ordered[count:]
        lengths = torch.tensor([len(each) for each in batch])
        rows = [torch.from_numpy(each) for each in batch]
        waveforms = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        memory = bundle.network.encode(*bundle.features(waveforms, lengths))
        tokens = math.ceil(rate * len(batch[0]) / RATE)  # rows of a batch are about as long
        steps += tokens
        greedy(bundle.network, memory, special, DecodingOptions(decoder="greedy", max_tokens=tokens))
    return steps


def compare_windows(folder: Path, recordings: list[np.ndarray], rate: float) -> None:
    """Print the times of short recordings and of a long one."""
    padded = read_model(Source(folder)).eval()
    short = read_model(Source(folder), ("features.window_seconds=null",)).eval()
    joined = np.concatenate(recordings)
    windows = [joined[i : i + WINDOW] for i in range(0, len(joined), WINDOW)]
    cut = [samples for _, samples in segments([joined], RATE, 30.0, with_speech)]
    cases = {
        f"{len(recordings)} recordings": [
            ("30 s windows, one after the other", padded, recordings, 1.0),
            ("30 s windows, batches of 60 s", padded, recordings, BATCH_SECONDS),
            ("as long as the audio, one after the other", short, recordings, 1.0),
            ("as long as the audio, batches of 60 s", short, recordings, BATCH_SECONDS),
        ],
        "one recording": [
            ("30 s windows, one after the other", padded, windows, 1.0),
            ("cut at silence, 30 s windows, batches of 60 s", padded, cut, BATCH_SECONDS),
            ("cut at silence, as long as the audio, batches of 60 s", short, cut, BATCH_SECONDS),
        ],
    }
    transcribe(short, recordings[:1], 1.0, rate)  # the first run prepares kernels
    for title, rows in cases.items():
        print(f"{title}, {len(joined) / RATE:.0f} s of audio")
        base = 0.0
        for name, bundle, pieces, batch_seconds in rows:
            began = time.process_time()
            steps = transcribe(bundle, pieces, batch_seconds, rate)
            taken = time.process_time() - began
            base = base or taken
            count = len(pieces)
            print(f"  {name:54} {count:3} pieces {steps:4} steps {taken:6.2f} s  {base / taken:5.2f} x")


@torch.inference_mode()
def compare_drafts(large: Path, small: Path, samples: np.ndarray, rate: float, shares: list[float]) -> None:
    """Print the times of one window with and without drafts."""
    model, draft = (read_model(Source(folder)).eval() for folder in (large, small))
    special = forbid_end(model)
    inputs = torch.from_numpy(samples[:WINDOW]).unsqueeze(0), torch.tensor([min(len(samples), WINDOW)])
    count = math.ceil(rate * int(inputs[1]) / RATE)
    options = DecodingOptions(decoder="greedy", max_tokens=count)

    def decode(drafts: Drafts | None) -> tuple[Sequence[int], float]:
        began = time.process_time()
        features, frames = model.features(*inputs)
        memory = model.network.encode(features, frames)
        if drafts is not None:
            memory = replace(memory, draft=draft.network.encode(features, frames))
        ((best,),) = greedy(model.network, memory, special, options, draft_network=drafts)  # type: ignore[arg-type]
        return best.tokens, time.process_time() - began

    known, base = decode(None)
    print(f"one window, {count} tokens\n  {'without drafts':54} {base:6.2f} s")
    for share in shares:
        found, taken = decode(Drafts(draft.network, known, len(special.prompt), share))
        assert found == known
        print(f"  {f'drafts, {share:.0%} of the tokens agree':54} {taken:6.2f} s  {base / taken:5.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--shape", default="tiny", choices=SHAPES)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=4.0, help="tokens for each second of audio")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--large", choices=SHAPES, help="measure drafts for this model too")
    parser.add_argument("--agreement", type=float, nargs="+", default=[0.7, 0.9])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    without_guard()
    recordings: list[np.ndarray] = []
    for each in find_inputs([str(options.manifest)])[0]:
        assert not isinstance(each.audio, np.ndarray)
        recordings.append(read(each.audio, RATE, each.start, each.duration))
        if sum(map(len, recordings)) >= options.seconds * RATE:
            break
    with tempfile.TemporaryDirectory() as name:
        small, large = Path(name) / "small", Path(name) / "large"
        write_folder(small, options.shape)
        print(f"whisper-{options.shape}, {options.threads} threads")
        compare_windows(small, recordings, options.rate)
        if options.large:
            write_folder(large, options.large)
            print(f"whisper-{options.large}, drafts of whisper-{options.shape}")
            compare_drafts(large, small, np.concatenate(recordings), options.rate, options.agreement)


if __name__ == "__main__":
    main()
