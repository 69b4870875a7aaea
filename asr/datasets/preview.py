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
from asr.datasets.batching import EpochPlan, count_pools
from asr.datasets.corpus import Corpus
from asr.datasets.loading import Batch, Loader
from asr.datasets.manifest import Utterance, write_manifest
from asr.errors import AsrError
from asr.features.interface import HasFrequencies
from asr.features.spec_augment import spec_augment
from asr.features.vocal_tract import perturb_vocal_tract
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

    With `data.shard_pool` these are the batches of all pools.

    OUT/NNN.wav has the samples of the loader, as 32-bit floats. manifest.jsonl has their texts and a
    description of their augmentation. index.html has a player and the masked features for each. The features
    are normalized by the mean and deviation of these examples. Their masks and vocal tracts are drawn as in
    training, but are not the same ones.

    Returns how many were written and a line for each recording that could not be read. Raises AsrError as
    `Corpus.read` and `Augmenter` do.
    """
    corpus = Corpus.read(config.data, "train", config.train.phonemes is not None)
    tokenizer = CharacterTokenizer.from_characters(corpus.counts)
    loader = Loader(corpus, tokenizer, config.features.sample_rate, config.data, config.augment)
    settings = config.data, config.augment, config.train.seed, epoch
    plans = [EpochPlan(corpus, *settings, pool) for pool in range(count_pools(corpus, config.data))]
    ends = np.cumsum([len(plan) for plan in plans])
    if not ends[-1]:
        raise AsrError("data.weights: with these weights the epoch has no utterance; choose larger weights")
    places = np.linspace(0, ends[-1] - 1, min(count, ends[-1])).round().astype(int)
    pools = np.searchsorted(ends, places, side="right")
    rounds = -(-count // len(places))
    planned = [plans[pool][place - ends[pool]] for place, pool in zip(places, pools, strict=True)]
    chosen = [example for examples in planned for example in examples[:rounds]][:count]
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
    examples = sum(len(plan.seconds) for plan in plans)
    of = f"Epoch {epoch}, seed {config.train.seed}. {len(rows)} of {examples:,} examples in "
    with atomic_write(out / "index.html") as page:
        page.write(_page(rows, f"{of}{ends[-1]:,} batches. {corpus.summary()}"))
    return len(rows), bad


def _masked_features(batches: list[Batch], config: Config) -> list[np.ndarray]:
    """Normalized features (T, F) of the only row of each batch, warped and masked as in training."""
    features = load_kind(FEATURES, config.features.kind)(config.features)
    warps, masks = config.augment.vocal_tract, config.augment.specaugment
    if warps is not None and not isinstance(features, HasFrequencies):
        kind = config.features.kind
        raise AsrError(f"augment.vocal_tract: features of kind {kind} cannot be warped; set it to null")
    for batch in batches:
        features.fit(batch.waveforms, batch.lengths)
    features.finish_fit()
    masked = []
    for number, batch in enumerate(batches):
        found, lengths = features(batch.waveforms, batch.lengths)  # (1, T, F), (1,)
        torch.manual_seed((config.train.seed << 32) + number)
        if warps is not None:
            found = perturb_vocal_tract(found, features.frequencies, warps)
        if masks is not None:
            found = spec_augment(found, lengths, masks)
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
