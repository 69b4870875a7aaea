"""Copy a trained run into the package as the model that ships.

    python recipes/fsdd/ship.py RUN

Weights are rounded to float16, which halves the file. The loader converts them to float32.
"""

from __future__ import annotations

import sys

from asr.model_folder import PRETRAINED, load_model


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    bundle = load_model(sys.argv[1], "cpu")
    bundle.save(PRETRAINED, {name: tensor.half() for name, tensor in bundle.module.state_dict().items()})
    print(f"{PRETRAINED}: now update README.md there, the model card")


if __name__ == "__main__":
    main()
