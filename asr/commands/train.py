"""`asr train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Resume = Annotated[
    bool, typer.Option("--resume", help="Continue a run that was stopped. It is an error if there is none.")
]
ResumeIfPossible = Annotated[
    bool, typer.Option("--resume-if-possible", help="Continue a run if there is one, otherwise start it.")
]


def train(
    config: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that differ, such as train.steps=2000 data.workers=4."),
    ] = None,
    run: Annotated[
        Path,
        # torchrun takes --run for an abbreviation of one of its own options.
        typer.Option("--run", "--run-dir", help="Folder of this run, which becomes a model folder."),
    ] = Path("runs/run"),
    resume: Resume = False,
    resume_if_possible: ResumeIfPossible = False,
    overfit: Annotated[
        int | None,
        typer.Option(
            min=1, help="Test whether the model can memorize N training utterances with different texts."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the cost: size, operations, time, memory.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
) -> None:
    """Train the model of a YAML file, with validations and checkpoints.

    The exit status is 0 for a finished run, 128 + the signal for one that was stopped and saved, and 1 for a
    run that learned nothing or had to stop.
    """
    from asr.config import load_config
    from asr.errors import AsrError
    from asr.training.estimate import dry_run as print_costs
    from asr.training.loop import train as run_training

    settings = load_config(config, tuple(overrides or ()))
    if overfit:
        settings = settings.overfit(overfit)
    if dry_run and (resume or resume_if_possible):
        raise AsrError("--dry-run only prints the cost and continues no run; leave out --resume")
    if dry_run:
        return print_costs(settings, device)
    raise typer.Exit(run_training(settings, run, which(resume, resume_if_possible), device))


def which(resume: bool, if_possible: bool) -> Literal["never", "always", "if_possible"]:
    """The meaning of the two options."""
    return "if_possible" if if_possible else "always" if resume else "never"
