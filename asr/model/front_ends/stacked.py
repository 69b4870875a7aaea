"""The front end that stacks neighboring frames (Sak et al. 2015), which has no convolution."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import pad

from asr.model.kernels import Linear
from asr.section import PartSection, Positive


class StackedFrontEnd(nn.Module):
    """Every state is a projection of a few neighboring frames. The next state begins `stride` frames later.

    The layer normalization brings the states to the size of the positions, which are added next.
    """

    class Config(PartSection):
        """Settings of the front end that stacks frames."""

        kind: Literal["stacked"] = "stacked"
        frames: Positive = Field(4, description="frames in a state")
        stride: Positive = Field(4, description="frames from one state to the next, at most `frames`")

        @model_validator(mode="after")
        def _uses_every_frame(self) -> StackedFrontEnd.Config:
            if self.stride > self.frames:
                raise ValueError(
                    f"stride {self.stride} is more than frames {self.frames}, which would leave out "
                    "frames; lower stride"
                )
            return self

    def __init__(self, config: StackedFrontEnd.Config, n_features: int) -> None:
        super().__init__()
        self.frames, self.stride = config.frames, config.stride
        self.frames_per_state = float(config.stride)
        self.project = Linear(config.frames * n_features, config.d_model)
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F), zero after each row's length, lengths (B,) -> (B, S, d_model), lengths (B,).

        S = ceil(T / stride). The last states of a row have zeros in place of frames after its end.
        """
        count = (features.size(1) + self.stride - 1) // self.stride
        missing = (count - 1) * self.stride + self.frames - features.size(1)
        stacks = pad(features, (0, 0, 0, missing)).unfold(1, self.frames, self.stride)  # (B, S, F, frames)
        x = self.project(stacks.transpose(2, 3).flatten(2))  # (B, S, frames * F) -> (B, S, d_model)
        return self.norm(x), (lengths + self.stride - 1) // self.stride
