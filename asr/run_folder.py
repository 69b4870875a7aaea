"""Names of the files in model folders and run folders. Nothing here imports torch.

run/                            a model folder: the best model so far; at the end the average of the best
  config.json  tokenizer.json  model.safetensors
  tensorboard/                  curves
  checkpoints/step-00000500/    a model folder with trainer.json
                                and, in the two newest ones, optimizer.safetensors
"""

from __future__ import annotations

from pathlib import Path

CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
OPTIMIZER, TRAINER = "optimizer.safetensors", "trainer.json"
CHECKPOINTS, CURVES = "checkpoints", "tensorboard"
_PREFIX = "step-"


def checkpoint_folder(run: Path, step: int) -> Path:
    """The checkpoint of a step."""
    return run / CHECKPOINTS / f"{_PREFIX}{step:08d}"


def step_of(checkpoint: Path) -> int:
    """The step of a checkpoint folder."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def checkpoint_folders(run: Path) -> list[Path]:
    """All complete checkpoints of a run, the oldest first."""
    return sorted(path for path in (run / CHECKPOINTS).glob(f"{_PREFIX}*") if path.name[5:].isdigit())
