"""`asr info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def info(
    model: Annotated[Path | None, typer.Option(help="Model folder; the English model if not given.")] = None,
) -> None:
    """Show versions, devices, and a model: sizes, vocabulary, results of its training."""
    from asr.model_summary import summary

    typer.echo(summary(model))
