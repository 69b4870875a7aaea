"""Sampling of tokens that does not depend on the batch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """Draws tokens in proportion to their probabilities to the power of 1 / `temperature`.

    The token with the highest sum of log-probability and noise of a Gumbel distribution is such a draw
    (Maddison et al. 2014, "A* sampling"). The noise is a function of the seed, the temperature and the tokens
    so far. So a text does not depend on the other texts of its batch.
    """

    temperature: float
    seed: int
    vocabulary_size: int

    def perturb(self, prefixes: Tensor, scores: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Adds noise to scores of all tokens (R, V) or candidates (R, K). The highest sum is the drawn token.

        `prefixes` (R, U) are the tokens before. The noise of a candidate is that of its token.
        """
        noise = torch.stack([self._noise(row) for row in prefixes.tolist()]).to(scores)
        return scores / self.temperature + (noise if candidates is None else noise.gather(1, candidates))

    def _noise(self, tokens: list[int]) -> Tensor:
        key = f"{self.seed} {self.temperature} {tokens}".encode()
        seed = int.from_bytes(hashlib.blake2b(key, digest_size=7).digest())
        return (
            -torch.empty(self.vocabulary_size)
            .exponential_(generator=torch.Generator().manual_seed(seed))
            .log()
        )
