"""Muon, an optimizer of matrices (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

torch.optim.Muon does the same. It always computes in bfloat16, which takes ten times as long on a CPU without
bfloat16 instructions, and every process repeats the work of all others.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.training.distributed import Ranks
from asr.training.precision import has_bf16

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of Jordan's polynomial
ITERATIONS = 5
ADAMW_STEP = 0.2  # root mean square of a usual step of AdamW, as a multiple of the learning rate


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for some matrices, and AdamW for all other weights.

    A step moves a matrix by its momentum with all singular values set to about 1. The step is scaled to the
    usual size of AdamW's steps, so both share one learning rate (Liu et al. 2025, arXiv:2502.16982). Each
    process computes the steps of some matrices and sends them to the others.
    """

    def __init__(
        self, matrices: list[nn.Parameter], weight_decay: float, adamw: torch.optim.AdamW, ranks: Ranks
    ) -> None:
        super().__init__([{"params": matrices, "lr": adamw.defaults["lr"], "weight_decay": weight_decay}], {})
        self.matrices, self.adamw, self.ranks = self.param_groups[0], adamw, ranks
        self.dtype = torch.bfloat16 if has_bf16(ranks.device) else torch.float32
        self.param_groups += adamw.param_groups
        adamw.state = self.state  # one state, so that checkpoints find all of it

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # the loop has no closures
        """Move all weights that have a gradient."""
        matrices = [p for p in self.matrices["params"] if p.grad is not None]
        directions = [torch.empty_like(p, dtype=self.dtype) for p in matrices]
        for i, (matrix, direction) in enumerate(zip(matrices, directions, strict=True)):
            momentum = self._momentum(matrix)
            if i % self.ranks.count == self.ranks.rank:
                ahead = matrix.grad.lerp(momentum, MOMENTUM)  # Nesterov's momentum
                direction.copy_(orthogonalized(ahead.to(self.dtype)))
        self.ranks.complete(directions)
        rate = self.matrices["lr"]
        for matrix, direction in zip(matrices, directions, strict=True):
            matrix.mul_(1 - rate * self.matrices["weight_decay"])
            matrix.add_(direction.to(matrix.dtype), alpha=-rate * ADAMW_STEP * max(matrix.shape) ** 0.5)
        self.adamw.step()

    def _momentum(self, matrix: Tensor) -> Tensor:
        """The moving average of the gradients of a matrix, with the present gradient in it."""
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        return state["momentum_buffer"].lerp_(matrix.grad, 1 - MOMENTUM)


def orthogonalized(matrix: Tensor) -> Tensor:
    """A matrix (m, n) with its singular values set to between 0.7 and 1.2, by Newton-Schulz iterations.

    Very small singular values stay small.
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrix if matrix.size(0) <= matrix.size(1) else matrix.T.contiguous()
    wide = wide / wide.norm().clamp(min=1e-7)  # no singular value is above 1
    for _ in range(ITERATIONS):
        square = wide @ wide.T  # (k, k) with k the smaller of m and n
        polynomial = torch.addmm(square, square, square, beta=b, alpha=c)
        wide = torch.addmm(wide, polynomial, wide, beta=a)
    return wide if matrix.size(0) <= matrix.size(1) else wide.T
