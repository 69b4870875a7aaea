"""The convolution module of the Conformer, which encoders use beside self-attention."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import glu, silu

from asr.model.kernels import Linear


class Convolution(nn.Module):
    """The convolution module of the Conformer (Gulati et al. 2020, section 2.2).

    A gate, a depthwise convolution over time, a norm, and a projection. The norm is over the channels of a
    frame. The paper's is over the batch, which would make a result depend on the other utterances.
    """

    def __init__(self, d_model: int, kernel: int) -> None:
        super().__init__()
        self.gate = Linear(d_model, 2 * d_model)
        # With two dimensions, because torch's one-dimensional convolution takes ten times as long on a CPU.
        self.depthwise = nn.Conv2d(d_model, d_model, (kernel, 1), padding=(kernel // 2, 0), groups=d_model)
        self.norm = nn.LayerNorm(d_model)
        self.out = Linear(d_model, d_model)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x (B, S, d_model), valid (B, S) -> (B, S, d_model)."""
        x = glu(self.gate(x), dim=-1) * valid.unsqueeze(2)  # zeros after each row's end
        x = self.depthwise(x.transpose(1, 2).unsqueeze(3))  # (B, d_model, S, 1)
        return self.out(silu(self.norm(x.squeeze(3).transpose(1, 2))))
