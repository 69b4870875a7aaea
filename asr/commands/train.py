"""`asr train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that differ, such as train.steps=2000 data.workers=4."),
    ] = None,
    run: Annotated[
        Path,
        # torchrun takes an argument --run for one of its own, cut short.
        typer.Option("--run", "--run-dir", help="Folder of this run; made, and in the end a model folder."),
    ] = Path("runs/run"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run was stopped.")] = False,
    overfit: Annotated[
        int | None,
        typer.Option(
            min=1, help="Learn the first N training utterances by heart: a check of the whole path."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it would cost: size, operations, time, memory.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
) -> None:
    """Train a model as a YAML file says; validate, checkpoint and resume on the way."""
    from asr.config import load_config
    from asr.errors import AsrError
    from asr.training.estimate import dry_run as print_costs
    from asr.training.loop import train as run_training

    settings = load_config(config, tuple(overrides or ()))
    if overfit:
        settings = settings.overfit(overfit)
    if dry_run and resume:
        raise AsrError("--dry-run: begins nothing and resumes nothing; leave out --resume")
    if dry_run:
        return print_costs(settings, device)
    raise typer.Exit(run_training(settings, run, resume, device))
