"""A deeper model that computes nearly the same as a trained one, from which training can go on.

    python recipes/english/deepen.py MODEL MANIFEST OUT

After every second half-rate block of the Conformer encoder of MODEL, a copy is put whose sublayers add
nothing yet: the last layer of each has weights of 0 (as in Net2Net, Chen et al. 2016). The layer norm at the
end of a block would still change the states, so its scale and bias become the mean standard deviation and the
mean of the states there. They are measured with the first recordings of MANIFEST. OUT is a model folder, for
`train.init=OUT` with the printed settings.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asr.audio import read
from asr.datasets.manifest import read_manifest
from asr.errors import AsrError
from asr.model.encoders.conformer import ConformerEncoder
from asr.model_folder import Bundle, load_model

RECORDINGS = 20  # with which states are measured
EVERY = 2  # blocks, after which a copy follows
LAST_LAYERS = ("first_feed_forward.3", "attention.out", "convolution.out", "second_feed_forward.3")


def places(blocks: int) -> list[int]:
    """The numbers of the blocks that a copy follows, from 0 on."""
    return list(range(EVERY - 1, blocks, EVERY))


def measure(bundle: Bundle[Any], blocks: nn.ModuleList, audio: list[Path]) -> dict[int, tuple[float, float]]:
    """The mean standard deviation and the mean of the states after each block that a copy follows."""
    found: dict[int, list[Tensor]] = defaultdict(list)

    def keep(number: int, states: Tensor) -> None:
        rows = states.detach().float().flatten(0, -2)
        found[number].append(torch.stack([rows.std(1, unbiased=False), rows.mean(1)]).mean(1))

    hooks = [
        blocks[number].register_forward_hook(lambda _, __, states, number=number: keep(number, states))
        for number in places(len(blocks))
    ]
    for path in audio:
        samples = torch.from_numpy(read(path, bundle.config.features.sample_rate)).unsqueeze(0)
        with torch.inference_mode():
            bundle.network.encode(*bundle.features(samples, torch.tensor([samples.size(1)])))
    for hook in hooks:
        hook.remove()
    return {number: tuple(torch.stack(each).mean(0).tolist()) for number, each in found.items()}


def deepen(bundle: Bundle[Any], audio: list[Path]) -> Bundle[Any]:
    """The deeper model. Raises AsrError for a model without such blocks."""
    section = getattr(bundle.config.model, "encoder", None)
    if not isinstance(section, ConformerEncoder.Config) or section.half_rate_layers < EVERY:
        raise AsrError(f"the model has no Conformer encoder with {EVERY} or more half-rate blocks")
    if section.quarter_rate_layers:
        raise AsrError("quarter_rate_layers are in the middle of the half-rate blocks; set them to 0")
    blocks = bundle.network.encoder.half_rate.blocks
    statistics = measure(bundle, blocks, audio)
    earlier = sum(number < section.phonemes_after for number in statistics)
    changes = {
        "half_rate_layers": len(blocks) + len(statistics),
        "phonemes_after": section.phonemes_after + earlier,
    }
    encoder = section.model_copy(update=changes)
    model = bundle.config.model.model_copy(update={"encoder": encoder})
    deeper = Bundle.build(bundle.config.model_copy(update={"model": model}), bundle.tokenizer)
    deeper.metadata = bundle.metadata
    deeper.module.load_state_dict(deeper_weights(bundle.module.state_dict(), len(blocks), statistics))
    return deeper.eval()


def deeper_weights(
    weights: dict[str, Tensor], blocks: int, statistics: dict[int, tuple[float, float]]
) -> dict[str, Tensor]:
    """The weights with copies of the blocks in `statistics`. The blocks after a copy have higher numbers."""
    prefix = "network.encoder.half_rate.blocks."
    found = {name: weight for name, weight in weights.items() if not name.startswith(prefix)}
    number = 0
    for block in range(blocks):
        own = f"{prefix}{block}."
        parts = {name.removeprefix(own): w for name, w in weights.items() if name.startswith(own)}
        copies = [parts]
        if block in statistics:
            deviation, mean = statistics[block]
            silent = {n: torch.zeros_like(w) for n, w in parts.items() if n.startswith(LAST_LAYERS)}
            norm = {
                "norm.weight": torch.full_like(parts["norm.weight"], deviation),
                "norm.bias": torch.full_like(parts["norm.bias"], mean),
            }
            copies.append(parts | silent | norm)
        for each in copies:
            found |= {f"{prefix}{number}.{name}": weight for name, weight in each.items()}
            number += 1
    return found


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    model, manifest, out = sys.argv[1:]
    audio = [each.audio for each in read_manifest(manifest)[:RECORDINGS]]
    deeper = deepen(load_model(model, "cpu"), audio)
    deeper.save(Path(out))
    encoder = deeper.config.model.encoder
    print(f"model.encoder.half_rate_layers={encoder.half_rate_layers}", end=" ")
    print(f"model.encoder.phonemes_after={encoder.phonemes_after}")


if __name__ == "__main__":
    try:
        main()
    except AsrError as error:
        sys.exit(f"deepen.py: error: {error}")
