"""`asr info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def info(
    model: Annotated[
        Path | None, typer.Option(help="Model folder; the model that ships if not given.")
    ] = None,
) -> None:
    """Show versions, devices, and what a model is: sizes, vocabulary, what it was trained to."""
    from asr.describe import describe

    typer.echo(describe(model))
