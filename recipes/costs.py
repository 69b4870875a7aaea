"""What the recipes cost: weights, operations, memory, and time at a rate that is assumed. No data are needed.

    python recipes/costs.py [RECIPE.yaml ...]

README.md beside this file explains the columns of the table.

One batch of noise is computed forward and backward. Operations and the bytes of stored activations are
counted, and grow with the seconds of audio. `asr train RECIPE --dry-run` measures time and memory on a
machine with the data. On several GPUs the same audio is divided among them; the exchange of gradients is not
included.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from asr.config import Config, load_config
from asr.datasets.loading import Batch
from asr.errors import AsrError
from asr.flops import flop_counter
from asr.model_folder import Bundle
from asr.tokenizers import CharacterTokenizer
from asr.training.objective import RecognitionObjective

ROWS, SECONDS = 4, 12.0
RATE = 94e12  # operations in a second: 30 % of the bfloat16 peak of an A100, an assumption
CHINESE = ("aishell",)  # 4,230 characters, four in a second; other recipes: 30, and fifteen in a second
GPUS = {"all960": 8}  # that a recipe is written for; others: one


def main(names: list[str]) -> None:
    """Print a table of Markdown."""
    here = Path(__file__).parent
    folders = ("librispeech", "aishell", "tedlium3", "common_voice", "yesno")
    paths = [Path(name) for name in names] or [p for f in folders for p in sorted((here / f).glob("*.yaml"))]
    print(
        "| recipe | weights | GFLOP per s of audio | hours of audio in all | time on 1 / 8 A100, assumed | "
        "memory for weights and AdamW | activations per s of a batch |\n|---|---|---|---|---|---|---|"
    )
    for path in paths:
        if path.stem != "lm":
            print(line(path, load_config(path)), flush=True)


def line(path: Path, config: Config) -> str:
    """A row of the table."""
    chinese = path.parent.name in CHINESE
    characters = tuple(chr(0x4E00 + i) for i in range(4230 if chinese else 30))
    bundle = Bundle.build(config, CharacterTokenizer(characters))
    objective = RecognitionObjective(bundle, config.train, None).train()
    batch = noise(config, int(SECONDS * (4 if chinese else 15)), len(bundle.tokenizer))
    bundle.features.fit(batch.waveforms, batch.lengths)
    bundle.features.finish_fit()
    stored: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in bundle.network.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            stored[storage.data_ptr()] = storage.nbytes()
        return tensor

    with flop_counter() as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        objective(batch)[0][0].backward()
    per_second = counter.get_total_flops() / (ROWS * SECONDS)
    gpus = GPUS.get(path.stem, 1)
    audio = config.train.steps * config.data.batch_seconds * config.optim.accumulate * gpus
    hours = per_second * audio / RATE / 3600
    mebibytes = sum(stored.values()) / (ROWS * SECONDS) / 2**20
    return (
        f"| `{path.parent.name}/{path.name}` | {bundle.parameters() / 1e6:.1f} M | {per_second / 1e9:.1f} | "
        f"{audio / 3600:,.0f} | {hours:.2f} h / {hours / 8:.2f} h | "
        f"{16 * bundle.parameters() / 1e9:.2f} GB | {mebibytes:.0f} MiB |"
    )


def noise(config: Config, tokens: int, size: int) -> Batch:
    """A batch of noise with random texts."""
    torch.manual_seed(0)
    samples = int(SECONDS * config.features.sample_rate)
    full, none = torch.full((ROWS,), tokens), torch.zeros(ROWS, dtype=torch.bool)
    return Batch(
        place=0,
        waveforms=0.1 * torch.randn(ROWS, samples),
        lengths=torch.full((ROWS,), samples),
        tokens=torch.randint(4, size, (ROWS, tokens)),
        token_lengths=full,
        has_text=~none,
        phonemes=torch.zeros(ROWS, 0, dtype=torch.long),
        phoneme_lengths=torch.zeros_like(full),
        has_phonemes=none,
        ids=[str(row) for row in range(ROWS)],
        texts=[""] * ROWS,
        treatments=[""] * ROWS,
        amount=ROWS * SECONDS,
        bad=(),
    )


if __name__ == "__main__":
    if any(name.startswith("-") for name in sys.argv[1:]):
        sys.exit(__doc__)
    try:
        main(sys.argv[1:])
    except AsrError as error:
        sys.exit(f"costs.py: error: {error}")
