"""`asr export`: one of our models in another layout."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Layout(StrEnum):
    """The layouts that can be written."""

    huggingface = "huggingface"


def export(
    model: Annotated[Path, typer.Argument(help="Model folder or run folder.")],
    target: Annotated[Path, typer.Argument(metavar="DIR", help="The new folder.")],
    format: Annotated[Layout, typer.Option(help="huggingface: the layout of the library transformers.")],
) -> None:
    """Write a model of the family of Whisper or Speech2Text in the layout of a public model."""
    from asr.model_folder import load_model
    from asr.public.exporting import export_model

    for left_out in export_model(load_model(model, "cpu"), target):
        typer.echo(f"asr: {left_out} has no place in this layout and is left out", err=True)
    typer.echo(f"{target}: written")
