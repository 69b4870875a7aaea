"""`asr import`: a public model becomes one of our model folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_model(
    name: Annotated[
        str, typer.Argument(help="A name of Hugging Face's hub, such as openai/whisper-tiny, or a folder.")
    ],
    target: Annotated[Path, typer.Argument(metavar="DIR", help="The new model folder.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that differ, such as features.window_seconds=null."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
) -> None:
    """Make a model folder from a Whisper or Speech2Text checkpoint, with the same weights.

    What was downloaded before is used again, also without a network.
    """
    from asr.public.importing import import_model as import_public

    bundle = import_public(name, target, revision, tuple(overrides or ()))
    typer.echo(f"{target}: {bundle.parameters():,} parameters, vocabulary of {len(bundle.tokenizer):,}")
