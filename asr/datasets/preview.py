"""A page with the inputs of the model in training, to listen to and to look at."""

from __future__ import annotations

import html
import io
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image

from asr.config import Config
from asr.datasets.batching import EpochPlan
from asr.datasets.corpus import Corpus
from asr.datasets.loading import Batch, Loader
from asr.datasets.manifest import Utterance, write_manifest
from asr.errors import AsrError
from asr.features.spec_augment import spec_augment
from asr.files import atomic_write
from asr.kinds import FEATURES
from asr.section import load_kind
from asr.tokenizers import CharacterTokenizer

_RANGE = 2.5  # an image shows values within so many standard deviations of the mean, black to white
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
article { margin: 2rem 0; padding-top: 1rem; border-top: 1px solid #8886; }
h2 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
p { margin: .3rem 0; overflow-wrap: anywhere; }
.text { font-size: 1.25rem; }
.how, h2 span { color: color-mix(in srgb, currentColor 65%, transparent); font-weight: normal; }
audio { width: 100%; margin: .3rem 0; }
img { max-width: 100%; height: 10rem; image-rendering: pixelated; display: block; }
"""


def write_examples(config: Config, out: Path, count: int, epoch: int) -> tuple[int, list[str]]:
    """Write up to `count` examples of an epoch, taken evenly from its batches, and a page that shows them.

    OUT/NNN.wav has the samples of the loader, as 32-bit floats. manifest.jsonl has their texts and a
    description of their augmentation. index.html has a player and the masked features for each. The features
    are normalized by the mean and deviation of these examples. Their masks are drawn as in training, but are
    not the same ones.

    Returns how many were written and a line for each recording that could not be read. Raises AsrError as
    `Corpus.read` and `Augmenter` do.
    """
    corpus = Corpus.read(config.data, "train", config.train.phonemes is not None)
    tokenizer = CharacterTokenizer.from_characters(corpus.counts)
    loader = Loader(corpus, tokenizer, config.features.sample_rate, config.data, config.augment)
    plan = EpochPlan(corpus, config.data, config.augment, config.train.seed, epoch)
    if not len(plan):
        raise AsrError("data.weights: they leave no utterance in this epoch; choose larger weights")
    places = np.linspace(0, len(plan) - 1, min(count, len(plan))).round().astype(int).tolist()
    rounds = -(-count // len(places))
    chosen = [example for place in places for example in plan[place][:rounds]][:count]
    batches = [loader.load([example]) for example in chosen]
    bad = [line for batch in batches for line in batch.bad]
    batches = [batch for batch in batches if batch.ids]

    rows = []
    for number, (batch, features) in enumerate(zip(batches, _masked_features(batches, config), strict=True)):
        wave, image = io.BytesIO(), io.BytesIO()
        samples = batch.waveforms[0].numpy()
        soundfile.write(wave, samples, loader.sample_rate, format="WAV", subtype="FLOAT")
        shades = (127.5 + features.T[::-1] * (127.5 / _RANGE)).clip(0, 255).astype(np.uint8)
        Image.fromarray(shades).save(image, "PNG")
        for suffix, data in (("wav", wave), ("png", image)):
            with atomic_write(out / f"{number:03}.{suffix}", "wb") as file:
                file.write(data.getvalue())
        extra = {"parts": batch.ids[0], "treatment": batch.treatments[0]}
        path = out / f"{number:03}.wav"
        rows.append(Utterance(f"{number:03}", path, batch.texts[0], batch.amount, extra=extra))
    write_manifest(out / "manifest.jsonl", rows)
    of = f"Epoch {epoch}, seed {config.train.seed}. {len(rows)} of {len(plan.seconds):,} examples in "
    with atomic_write(out / "index.html") as page:
        page.write(_page(rows, f"{of}{len(plan):,} batches. {corpus.summary()}"))
    return len(rows), bad


def _masked_features(batches: list[Batch], config: Config) -> list[np.ndarray]:
    """Normalized features (T, F) of the only row of each batch, masked by SpecAugment."""
    features = load_kind(FEATURES, config.features.kind)(config.features)
    for batch in batches:
        features.fit(batch.waveforms, batch.lengths)
    features.finish_fit()
    masked = []
    for number, batch in enumerate(batches):
        found, lengths = features(batch.waveforms, batch.lengths)  # (1, T, F), (1,)
        if config.augment.specaugment is not None:
            torch.manual_seed((config.train.seed << 32) + number)
            found = spec_augment(found, lengths, config.augment.specaugment)
        masked.append(found[0].numpy())
    return masked


def _page(rows: list[Utterance], summary: str) -> str:
    parts = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width"><title>Training examples</title>',
        f"<style>{_STYLE}</style><h1>Training examples</h1><p>{html.escape(summary)}</p>",
        "<p>Images: time runs to the right, frequency upwards. Even gray is the mean, or a mask.</p>",
    ]
    for row in rows:
        name, treatment = html.escape(row.extra["parts"]), html.escape(row.extra["treatment"])
        parts.append(
            f"<article><h2>{row.id} <span>{name}, {row.duration:.2f} s</span></h2>"
            f'<p class="text" dir="auto">{html.escape(row.text or "") or "(no text)"}</p>'
            f'<audio controls preload="metadata" src="{row.id}.wav"></audio>'
            f'<img src="{row.id}.png" alt="Log-mel features of {row.id}, masked">'
            f'<p class="how">{treatment or "as recorded"}</p></article>'
        )
    return "\n".join(parts) + "\n"
