"""`asr runs`: a table of the runs of a folder."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer


def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER", help="Runs, or folders of runs.  [default: runs]"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON list, with all settings and validations.")
    ] = False,
) -> None:
    """List runs: their progress, their best scores on the dev set, and the settings in which they differ.

    The output is a table in a terminal, otherwise tab-separated values. A run that cannot be read is
    listed as broken. The files do not show whether a process still works on a run: look at the time of
    the last save.
    """
    from asr.training import runs as found

    read = [found.read_run(folder) for folder in found.find_runs(folders or [Path("runs")])]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    typer.echo(found.as_json(read) if as_json else found.report(read, width))
