"""An encoder's states from phonemes alone, for training on text without audio (text injection)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from asr.model.kernels import Linear

NEIGHBORS = 1  # states on each side whose phonemes are read too


class PhonemeReader(nn.Module):
    """Predicts the states of audio at the phoneme head from the probabilities of the head.

    It learns this from audio, by least squares. Then it takes the place of the blocks before the head for
    sentences without audio, so the blocks after it find states that they can read from the first step on
    (Mittal et al. 2023, "In-situ text-only adaptation of speech models with low-overhead speech
    imputations"). Without it, these blocks did not learn to read phonemes.
    """

    def __init__(self, d_model: int, phonemes: int) -> None:
        super().__init__()
        width = (2 * NEIGHBORS + 1) * phonemes
        # Adam changes a weight by the learning rate at most. With a large input, small weights are enough.
        self.scale = math.sqrt(d_model)
        self.to_states = Linear(width, d_model)
        self.to_earlier = Linear(width, 2 * d_model)

    def forward(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, phonemes) -> the states at the head (B, S, d_model), and those before the rate was halved.

        The latter are in pairs (B, S, 2 * d_model).
        """
        size = probabilities.size(1)
        padded = pad(probabilities, (0, 0, NEIGHBORS, NEIGHBORS))
        near = [padded[:, first : first + size] for first in range(2 * NEIGHBORS + 1)]
        context = self.scale * torch.cat(near, 2)
        return self.to_states(context), self.to_earlier(context)

    def errors(self, probabilities: Tensor, states: Tensor, earlier: Tensor) -> Tensor:
        """The differences (B, S, 3 * d_model) between the prediction and the states.

        Only the reader gets gradients from them.
        """
        predicted = torch.cat(self(probabilities.detach()), 2)
        return predicted - torch.cat([states, earlier], 2).detach()
