"""From a configuration to everything the loop needs: data, tokenizer, features, network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from asr.config import AugmentConfig, Config
from asr.datasets.batching import EpochPlan
from asr.datasets.corpus import Corpus
from asr.datasets.loading import Loader
from asr.errors import AsrError
from asr.features.interface import Features
from asr.kinds import TOKENIZERS
from asr.model_folder import Bundle
from asr.section import load_kind
from asr.tokenizers import Tokenizer

STATISTICS_SECONDS = 1800.0  # half an hour of audio fixes the mean and variance of a mel bin well enough


@dataclass
class Setup:
    """What `set_up` builds."""

    bundle: Bundle
    train: Loader
    dev: Loader
    dev_plan: EpochPlan


def set_up(config: Config, say: Callable[[str], None]) -> Setup:
    """Read the manifests, learn the tokenizer, build the network with the seed's weights, fit the features.

    Raises AsrError for empty or missing manifests and for texts with a character that the
    model would not have, and for folders of noise or rooms that cannot be used.
    """
    train, dev = Corpus.read(config.data, "train"), Corpus.read(config.data, "dev")
    say(f"data.train: {train.summary()}")
    say(f"data.dev: {dev.summary()}")
    tokenizer = learn_tokenizer(config, train)
    check_characters(config, tokenizer, train, dev)
    torch.manual_seed(config.train.seed)
    bundle = Bundle.build(config, tokenizer)
    setup = Setup(
        bundle,
        Loader(train, tokenizer, config, train=True),
        Loader(dev, tokenizer, config, train=False),
        EpochPlan(dev, config.data, AugmentConfig(specaugment=None), seed=0, epoch=0),
    )
    plan = EpochPlan(train, config.data, config.augment, config.train.seed, epoch=0)
    bundle.metadata["longest_seconds"] = f"{np.quantile(plan.seconds, 0.99):.1f}"
    _fit_features(bundle.features, setup.train, plan)
    return setup


def learn_tokenizer(config: Config, train: Corpus) -> Tokenizer:
    """`tokenizer.characters`, or those of the training texts and, where they are joined, of what goes between."""
    kind = load_kind(TOKENIZERS, config.tokenizer.kind)
    return kind.learn(config.tokenizer, [*train.counts, *_between(config)])


def check_characters(config: Config, tokenizer: Tokenizer, *sets: Corpus) -> None:
    """Raises AsrError, with file and line, for a text with a character that the tokenizer does not have."""
    if config.data.unknown_characters == "unk":
        return
    for corpus in sets:
        corpus.check_characters(tokenizer)
    if unknown := set(_between(config)) - set(tokenizer.symbols):
        raise AsrError(
            f"augment.join.separator: the model has no {min(unknown)!r}; add it to tokenizer.characters, or set "
            "another separator"
        )


def _between(config: Config) -> str:
    return config.augment.join.separator if config.augment.join.per_epoch else ""


def _fit_features(features: Features, loader: Loader, plan: EpochPlan) -> None:
    seconds = 0.0
    for batch in loader.batches(plan, range(len(plan))):
        if batch.ids:
            features.fit(batch.waveforms, batch.lengths)
        seconds += batch.seconds
        if seconds >= STATISTICS_SECONDS:
            break
    features.finish_fit()
