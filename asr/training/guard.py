"""A guard against ruined weights: they are not finite, or their loss stays far above its usual value."""

from __future__ import annotations

import torch
from torch import nn

from asr.training.distributed import Ranks
from asr.training.steps import Step, explosion_limit
from asr.training.tasks import Batch
from asr.training.train_state import TrainState

MAX_EXPLODED = 3  # steps in a row with a far too high loss before the weights are suspect


class WeightGuard:
    """Checks the weights with the last batch that had a usual loss.

    One strange batch makes the loss high, and one bad step ruins the weights. The loss of that last batch
    distinguishes the two cases.
    """

    def __init__(self, objective: nn.Module, vocabulary_size: int, state: TrainState, ranks: Ranks) -> None:
        self.objective, self.state, self.ranks = objective, state, ranks
        self._vocabulary_size = vocabulary_size
        self._reference_batch: Batch | None = None
        self._exploded = 0

    def suspects(self, step: Step, batch: Batch | None) -> bool:
        """Whether the losses of the last steps are a reason to check the weights."""
        self._exploded = self._exploded + 1 if step.exploded else 0
        if not step.exploded and not step.skipped and batch is not None:
            self._reference_batch = batch
        if self._exploded < MAX_EXPLODED:
            return False
        self._exploded = 0
        return True

    def approves(self) -> bool:
        """Whether the weights are finite and give the batch a usual loss, in all processes."""
        good = all(bool(p.isfinite().all()) for p in self.objective.parameters())
        if good and self._reference_batch is not None:
            was_training = self.objective.training
            with torch.no_grad():
                losses, _ = self.objective.eval()(self._reference_batch)
                loss = float(losses[0]) / self._reference_batch.n_targets
            self.objective.train(was_training)
            good = loss <= explosion_limit(self.state.typical_loss, self._vocabulary_size)
        (bad,) = self.ranks.total(not good)
        return not bad
