"""The small models of test_family.py and test_family_training.py, the suite of every architecture."""

from __future__ import annotations

import torch

from asr.config import Config
from asr.model_folder import Bundle
from asr.tokenizers import CharacterTokenizer

SIZES = {"d_model": 16, "n_heads": 2, "d_ffn": 24}
ENCODER, DECODER = {"n_layers": 2}, {"n_layers": 1}
TRANSFORMER = {"front_end": {"channels": 3}, "encoder": ENCODER, "decoder": DECODER}
CONFORMER = {"kind": "conformer", "n_layers": 2, "conv_kernel": 5}
FEATURES = {"n_mels": 12}

# The section `model` of each architecture beside SIZES; and the sections that differ otherwise.
ARCHITECTURES: dict[str, dict] = {
    "transformer": {},
    "post-norm": {"norm": "post"},
    "swiglu, tied": {"activation": "swiglu", "decoder": DECODER | {"tie_embedding": True}},
    "without CTC": {"ctc": False},
    "CTC alone": {"decoder": None},
    "mask-predict": {"decoder": {"kind": "mask_predict", "n_layers": 2}},
    "mask-predict, length head": {
        "ctc": False,
        "decoder": {"kind": "mask_predict", "n_layers": 1, "length_head": 30},
    },
    "conformer": {"encoder": CONFORMER},
    "conformer at half rate": {"encoder": CONFORMER | {"half_rate_layers": 2}},
    "convolution in blocks": {"encoder": ENCODER | {"conv_kernel": 5}},
    "one-dimensional convolutions": {"front_end": {"kind": "convolution1d"}},
    "intermediate CTC": {"intermediate_ctc": {"layers": [1], "self_conditioned": False}},
    "self-conditioned conformer": {"encoder": CONFORMER, "intermediate_ctc": {"layers": [1]}},
    "patches": {"front_end": {"kind": "patches", "frames": 4, "bins": 12}},
    "stacked frames": {"front_end": {"kind": "stacked"}},
    "window": {"encoder": ENCODER | {"window": 2}},
    "conformer at a quarter of the rate": {
        "encoder": CONFORMER | {"half_rate_layers": 2, "quarter_rate_layers": 1}
    },
    "Listen, Attend and Spell": {"encoder": {"kind": "pyramidal_lstm"}, "decoder": {"kind": "lstm"}},
    "RNN without attention": {
        "encoder": {"kind": "pyramidal_lstm"},
        "decoder": {"kind": "lstm", "attention": "none"},
    },
    **{f"{kind} positions": {"positions": kind} for kind in ("none", "sinusoidal", "learned", "rotary")},
    **{f"{kind} positions": {"encoder": ENCODER | {"positions": kind}} for kind in ("relative", "shaw")},
}
LSTMS = ("Listen, Attend and Spell", "RNN without attention")  # they have no heads
CTC_WEIGHTS = {"without CTC": 0.0, "mask-predict, length head": 0.0, "CTC alone": 1.0}


def config(name: str, **sections) -> Config:
    """The configuration of an architecture."""
    sizes = {"d_model": 16} if name in LSTMS else SIZES
    model = sizes | TRANSFORMER | ARCHITECTURES[name]
    train = {"ctc_weight": CTC_WEIGHTS.get(name, 0.3)} | sections.pop("train", {})
    return Config.model_validate({"model": model, "features": FEATURES, "train": train} | sections)


def bundle(name: str, seed: int = 1) -> Bundle[Config]:
    """A model with random weights that are large enough for everything to matter."""
    torch.manual_seed(seed)
    made = Bundle.build(config(name), CharacterTokenizer.from_characters(["efgh norstuv"]))
    for parameter in made.network.parameters():
        if parameter.dim() > 1:
            parameter.data *= 1.5
        else:
            parameter.data += 0.2 * torch.randn_like(parameter)
    made.features.mean.fill_(-8.0)
    made.features.std.fill_(3.0)
    return made.eval()
