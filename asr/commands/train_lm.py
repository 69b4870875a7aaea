"""`asr train-lm`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train_lm(
    config: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that differ, such as train.steps=2000 data.case=upper."),
    ] = None,
    run: Annotated[
        Path, typer.Option(help="Folder of this run; made, and in the end a language model's folder.")
    ] = Path("runs/lm"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run was stopped.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
) -> None:
    """Train a character language model on plain text, one sentence a line."""
    from asr.config import load_language_config
    from asr.training.language import train_language_model

    settings = load_language_config(config, tuple(overrides or ()))
    raise typer.Exit(train_language_model(settings, run, resume, device))
