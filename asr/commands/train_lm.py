"""`asr train-lm`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.commands.train import Resume, ResumeIfPossible, which


def train_lm(
    config: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that differ, such as train.steps=2000 data.case=upper."),
    ] = None,
    run: Annotated[
        Path,
        typer.Option(
            "--run", "--run-dir", help="Folder of this run, which becomes a language model's folder."
        ),
    ] = Path("runs/lm"),
    resume: Resume = False,
    resume_if_possible: ResumeIfPossible = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
) -> None:
    """Train a language model on plain text, one sentence per line."""
    from asr.config import load_language_config
    from asr.training.loop import train as run_training

    settings = load_language_config(config, tuple(overrides or ()))
    raise typer.Exit(run_training(settings, run, which(resume, resume_if_possible), device))
