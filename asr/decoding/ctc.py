"""Decoding with the CTC head alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from asr.tokenizer import END, PAD


def collapse(paths: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """What CTC paths (B, S) say: repeated tokens once, blanks not at all.

    Returns texts (B, U), filled up with END, and how many of its tokens each row has begun after so many
    states: (B, S + 1).
    """
    valid = torch.arange(paths.size(1), device=paths.device) < lengths.unsqueeze(1)
    begins = (paths != PAD) & (paths != pad(paths[:, :-1], (1, 0), value=PAD)) & valid
    begun = pad(begins.cumsum(1), (1, 0))  # (B, S + 1)
    texts = torch.full_like(paths[:, :1], END).expand(-1, int(begun.max()) + 1).clone()
    # What begins nothing goes to a last place, which is then dropped.
    texts.scatter_(1, torch.where(begins, begun[:, :-1], texts.size(1) - 1), paths)
    return texts[:, :-1], begun
