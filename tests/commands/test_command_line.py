"""The command line as a whole: help, version, and the commands that it has."""

import resource

import pytest
from command_line import run

from asr import __version__, commands

VERBS = [
    "transcribe",
    "listen",
    "score",
    "train",
    "train-lm",
    "runs",
    "prepare",
    "info",
    "inspect",
    "export",
    "import",
    "data",
]


def test_help_takes_little_time():
    """Less than 0.4 s. Processor time is measured, because the machine may be busy."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        status, out, _ = run("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert status == 0
        assert all(f"  {verb} " in out.decode() for verb in VERBS)
    assert min(spent) < 0.4


def test_every_command_has_a_test():
    found = [
        command.name or command.callback.__name__.replace("_", "-")
        for command in commands.app.registered_commands
    ]
    assert [*found, *(group.typer_instance.info.name for group in commands.app.registered_groups)] == VERBS


@pytest.mark.parametrize("verb", ["", *VERBS, "data preview"])
def test_help_imports_nothing_heavy(verb):
    status, out, err = run(*verb.split(), "--help", python=("-X", "importtime"))
    assert status == 0 and out.startswith(b"Usage: ")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in err.decode().splitlines()}
    assert "typer" in imported
    assert not imported & {"torch", "torchaudio", "numpy", "librosa", "soundfile", "soxr", "yaml", "jiwer"}


def test_version(asr):
    assert asr("--version") == (0, [f"asr {__version__}"], [])
