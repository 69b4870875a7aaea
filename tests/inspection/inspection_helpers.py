"""What the tests of inspections share: models of several forms, and audio."""

from __future__ import annotations

import numpy as np
import soundfile
import torch

from asr.config import Config
from asr.model_folder import Bundle
from asr.tokenizers import CharacterTokenizer

CHARACTERS = 'efghinor stuvwxz<>&"'


def model(ctc_weight=0.3, phonemes=None, features=None, characters=CHARACTERS, **settings) -> Bundle:
    """A small model with random weights. `settings` are those of the section `model`.

    With a `ctc_weight` of 0 it has no CTC head, with 1 no decoder.
    """
    torch.manual_seed(0)
    sizes = {"d_model": 16, "front_end": {"channels": 2}}
    kinds = [settings.get("encoder", {}).get("kind"), settings.get("decoder", {}).get("kind")]
    if kinds[0] != "pyramidal_lstm" or (kinds[1] != "lstm" and ctc_weight < 1):  # a stack has heads
        sizes |= {"n_heads": 2, "d_ffn": 24}
    config = {"model": {**sizes, "encoder": {"n_layers": 2}, "decoder": {"n_layers": 2}} | settings}
    config |= {"train": {"ctc_weight": ctc_weight}, "features": features or {}}
    if phonemes:
        config["train"]["phonemes"] = {"symbols": phonemes}
    bundle = Bundle.build(Config.model_validate(config), CharacterTokenizer.from_characters([characters]))
    if not features:
        bundle.features.mean.fill_(-8.0)
        bundle.features.std.fill_(3.0)
    return bundle.eval()


def recording(path, seconds=1.5, rate=16000, seed=0):
    """A wav file of tones that change, in noise."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch = np.repeat(generator.uniform(200, 2000, len(time) // 1600 + 1), 1600)[: len(time)]
    soundfile.write(
        path, 0.2 * np.sin(2 * np.pi * pitch * time) + 0.01 * generator.standard_normal(len(time)), rate
    )
    return path
