"""Copy a trained run into the package, as a model that ships under a name.

    python recipes/ship.py RUN [RUN ...] NAME [--shares 0.7 0.3]

With several runs of the same model, the mean of their weights is stored (Wortsman et al. 2022, "Robust
fine-tuning of zero-shot models"), or with --shares a weighted mean. Everything else is that of the first.
Weights are rounded to float16, which halves the file. The loader converts them to float32. The layers that
read phonemes in place of audio are left out: only training on text uses them.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser

import torch
from torch import Tensor

from asr.config import Config
from asr.errors import AsrError
from asr.model_folder import SHIPPED, Bundle, load_model

KEPT = (
    "longest_seconds",
    "length_normalization",
    "voice_activity",
)  # of the metadata, by which a model decodes


def mean_weights(models: list[dict[str, Tensor]], shares: list[float]) -> dict[str, Tensor]:
    """The mean of each weight, in which each model counts by its share.

    Raises AsrError for models of different sizes, and for shares that do not fit.
    """
    if len(shares) != len(models) or min(shares) < 0 or not sum(shares):
        raise AsrError(f"--shares {shares}: give {len(models)} numbers above 0, one for each run")
    first = models[0]
    for other in models[1:]:
        if {name: w.shape for name, w in other.items()} != {name: w.shape for name, w in first.items()}:
            raise AsrError("the runs have weights of different sizes; give runs of the same configuration")
    parts = [share / sum(shares) for share in shares]
    return {
        name: sum((part * model[name] for part, model in zip(parts, models, strict=True)), torch.zeros(()))
        for name in first
    }


def weights_of(bundle: Bundle) -> dict[str, Tensor]:
    """The weights for recognition, without those of `asr.model.phoneme_reader`."""
    weights = bundle.module.state_dict()
    return {name: weight for name, weight in weights.items() if ".phoneme_reader." not in name}


def for_recognition(config: Config) -> Config:
    """The configuration without training on text, and without the folder that training started from.

    That folder is not in the package.
    """
    train = config.train.model_copy(update={"init": None, "text_injection": None})
    model, encoder = config.model, getattr(config.model, "encoder", None)
    if encoder is not None and getattr(encoder, "reads_phonemes", False):
        model = model.model_copy(update={"encoder": encoder.model_copy(update={"reads_phonemes": False})})
    return config.model_copy(update={"train": train, "model": model})


def main() -> None:
    parser = ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run or of a model")
    parser.add_argument("name", metavar="NAME", help="name of the model in the package")
    parser.add_argument(
        "--shares", nargs="+", type=float, help="share of each run in the mean; default: equal"
    )
    given = parser.parse_args()
    bundle, *others = (load_model(run, "cpu") for run in given.runs)
    folder = SHIPPED / given.name
    bundle.config = for_recognition(bundle.config)
    models = [weights_of(each) for each in (bundle, *others)]
    weights = mean_weights(models, given.shares or [1.0] * len(models))
    if others:  # the results of training are not those of a mean
        bundle.metadata = {name: value for name, value in bundle.metadata.items() if name in KEPT}
    bundle.save(folder, {name: tensor.half() for name, tensor in weights.items()})
    print(f"{folder}: now write README.md there, the model card")


if __name__ == "__main__":
    try:
        main()
    except AsrError as error:
        sys.exit(f"ship.py: error: {error}")
