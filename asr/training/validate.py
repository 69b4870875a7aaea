"""Validation by real decoding, shared out over the processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from asr.decoding import DecodingOptions, build_decoder
from asr.errors import AsrError
from asr.scoring import Score, score
from asr.training.distributed import Ranks
from asr.training.losses import joint_loss
from asr.training.objective import count_tokens
from asr.training.setup import Setup


@dataclass(frozen=True)
class Validation:
    """Loss per token and scores of a set."""

    loss: float
    score: Score
    bad: tuple[str, ...]  # recordings that could not be read, and are not in the scores

    @property
    def cer(self) -> float:
        """Character error rate."""
        return self.score.cer

    @property
    def wer(self) -> float:
        """Word error rate."""
        return self.score.wer


@torch.inference_mode()
def validate(setup: Setup, ranks: Ranks, stop: Callable[[], bool] = bool) -> Validation | None:
    """Decode the dev set greedily and score it: the same answer in every process.

    None when `stop` said so in any of them. The model is left in evaluation mode.
    """
    bundle = setup.bundle.eval()
    config, device = bundle.config.train, bundle.device
    decode = build_decoder(bundle, DecodingOptions())
    loss, tokens, stopped = 0.0, 0, False
    texts: dict[str, tuple[str, str]] = {}  # id: said, heard
    bad: list[str] = []
    for batch in setup.dev.batches(setup.dev_plan, range(ranks.rank, len(setup.dev_plan), ranks.count)):
        if stopped := stop():
            break
        bad += batch.bad
        if not batch.ids:
            continue
        features, lengths = bundle.features(batch.waveforms.to(device), batch.lengths.to(device))
        given = (batch.tokens.to(device), batch.token_lengths.to(device))
        loss += float(joint_loss(bundle.network, features, lengths, *given, config).total)
        tokens += count_tokens(batch)
        found = decode(bundle.network.encode(features, lengths))
        heard = (bundle.tokenizer.decode(best.tokens) for best, *_ in found)
        texts.update(zip(batch.ids, zip(batch.texts, heard, strict=True), strict=True))

    loss, tokens_of_all, stops = ranks.total(loss, tokens, stopped)
    if stops:
        return None
    everything = {id: pair for each in ranks.gather(texts) for id, pair in each.items()}
    bad = [message for each in ranks.gather(bad) for message in each]
    if not everything:
        raise AsrError(f"data.dev: not one recording can be read; the first: {bad[0]}")
    references, hypotheses = ({id: pair[i] for id, pair in everything.items()} for i in (0, 1))
    return Validation(
        loss / max(1.0, tokens_of_all),
        score(references, hypotheses),
        tuple(bad),
    )
