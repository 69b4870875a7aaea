"""Validation by real decoding."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from asr.bundle import Bundle
from asr.datasets.batching import EpochPlan
from asr.datasets.loader import Loader
from asr.decoding import DecodingOptions, greedy
from asr.scoring import Score, score
from asr.training.losses import joint_loss


@dataclass(frozen=True)
class Validation:
    """Loss per token and scores of a set."""

    loss: float
    score: Score

    @property
    def cer(self) -> float:
        """Character error rate."""
        return self.score.cer

    @property
    def wer(self) -> float:
        """Word error rate."""
        return self.score.wer


@torch.inference_mode()
def validate(bundle: Bundle, loader: Loader, plan: EpochPlan) -> Validation:
    """Decode a set greedily and score it; the bundle is left in evaluation mode."""
    bundle.eval()
    config, device = bundle.config.train, bundle.device
    total, tokens = 0.0, 0
    references: dict[str, str] = {}
    hypotheses: dict[str, str] = {}
    for batch in loader.batches(plan):
        features, lengths = bundle.features(batch.waveforms.to(device), batch.lengths.to(device))
        losses = joint_loss(
            bundle.network, features, lengths, batch.tokens.to(device), batch.token_lengths.to(device), config
        )
        total, tokens = total + float(losses.total), tokens + losses.tokens
        found = greedy(bundle.network, bundle.network.encode(features, lengths), DecodingOptions())
        references.update(zip(batch.ids, batch.texts, strict=True))
        hypotheses.update(
            (id, bundle.tokenizer.decode(h.tokens)) for id, h in zip(batch.ids, found, strict=True)
        )
    return Validation(total / max(1, tokens), score(references, hypotheses))
