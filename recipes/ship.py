"""Copy a trained run into the package, as a model that ships under a name.

    python recipes/ship.py RUN NAME

Weights are rounded to float16, which halves the file. The loader converts them to float32.
"""

from __future__ import annotations

import sys

from asr.model_folder import SHIPPED, load_model


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    bundle, folder = load_model(sys.argv[1], "cpu"), SHIPPED / sys.argv[2]
    # The folder that training started from is not in the package.
    train = bundle.config.train.model_copy(update={"init": None})
    bundle.config = bundle.config.model_copy(update={"train": train})
    bundle.save(folder, {name: tensor.half() for name, tensor in bundle.module.state_dict().items()})
    print(f"{folder}: now write README.md there, the model card")


if __name__ == "__main__":
    main()
