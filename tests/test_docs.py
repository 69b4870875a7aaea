"""The commands, help and settings in README and docs are those of the program.

`python tests/test_docs.py` writes docs/cli.md and docs/configuration.md again.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import jiwer
import pytest
import typer
from typer.testing import CliRunner

from asr.commands import app
from asr.config_page import configuration_page

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "data" / "samples"
PAGES = [
    "README.md",
    "recipes/README.md",
    "recipes/english/README.md",
    "recipes/english/experiments.md",
    "recipes/fsdd/README.md",
    "recipes/books_lm/README.md",
    "recipes/speechocean762/README.md",
    "recipes/librispeech/README.md",
    "recipes/aishell/README.md",
    "recipes/tedlium3/README.md",
    "recipes/common_voice/README.md",
    "recipes/yesno/README.md",
    "recipes/whisper/README.md",
    "recipes/voice_activity/README.md",
    "CONTRIBUTING.md",
    "asr/pretrained/english/README.md",
    "data/samples/README.md",
    "data/samples/digits/README.md",
    "docs/architectures.md",
    "docs/corpora.md",
    "docs/help.md",
    "docs/inspection.md",
    "docs/measurements.md",
    "docs/performance.md",
    "docs/public_models.md",
    "docs/training.md",
    "docs/transcription.md",
]
COMMAND = typer.main.get_command(app)


def blocks(page: str) -> list[str]:
    """The indented code blocks of a page, without their indentation."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [re.sub("(?m)^    ", "", block) for block in re.findall(r"(?m)(?:^    .*\n)+", text)]


def command_lines() -> list[tuple[str, str]]:
    lines = [
        (page, line)
        for page in PAGES
        for block in blocks(page)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [
        (page, part.strip())
        for page, line in lines
        for part in line.split("&&")
        if part.strip().startswith("asr ")
    ]


def verbs() -> list[list[str]]:
    """The command line itself, its verbs, and theirs."""
    found = [[]]
    for name, command in COMMAND.commands.items():
        found += [[name], *([name, inner] for inner in getattr(command, "commands", ()))]
    return found


def help_page() -> str:
    """docs/cli.md as it should be."""
    page = ["# The command line", "", "Made by `python tests/test_docs.py`; a test fails when it is stale."]
    for verb in verbs():
        result = CliRunner().invoke(app, [*verb, "--help"], prog_name="asr", env={"COLUMNS": "100"})
        assert result.exit_code == 0
        shown = "\n".join(("    " + line).rstrip() for line in result.output.strip().splitlines())
        page += ["", f"## {' '.join(['asr', *verb])}", "", shown]
    return "\n".join(page) + "\n"


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_every_command_shown_is_one_the_program_takes(page, line):
    """Parsed by the command line itself: verb, options and their values."""
    _, verb, *arguments = shlex.split(line, comments=True)
    command = COMMAND.commands[verb]
    while inner := getattr(command, "commands", None):
        verb, *arguments = arguments
        command = inner[verb]
    command.make_context(verb, arguments)


def test_help_in_the_docs_equals_the_output_of_the_program():
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == help_page()


def test_the_page_of_settings_is_up_to_date():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == configuration_page()
    assert "| `ctc_weight` | number | 0.3 |" in page and "kind `conformer`" in page
    undescribed = [line for line in page.splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert not undescribed


def test_the_first_command_of_the_readme_has_the_output_shown_there():
    shown = next(block for block in blocks("README.md") if block.startswith("data/samples/"))
    (line,) = [
        line
        for page, line in command_lines()
        if page == "README.md" and line == "asr transcribe data/samples"
    ]
    result = subprocess.run(
        [sys.executable, "cli.py", *shlex.split(line)[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    found, expected = ([row.split() for row in text.splitlines()] for text in (result.stdout, shown))
    assert [row[0] for row in found] == [row[0] for row in expected]
    # Processors round differently, which can change a character that is almost as likely as another.
    assert jiwer.cer([" ".join(row[1:]) for row in expected], [" ".join(row[1:]) for row in found]) < 0.05


def test_python_of_the_readme_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    exec(code, {})
    assert jiwer.cer((SAMPLES / "letter.txt").read_text().strip(), capsys.readouterr().out.strip()) < 0.3


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"(?m)^#+ (.*)$", path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, "docs/design.md", "docs/cli.md"])
def test_links_have_a_target(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target, heading in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        if target.startswith("http"):
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        if heading:
            assert heading in anchors(path), f"{target}#{heading}"


if __name__ == "__main__":
    (ROOT / "docs" / "cli.md").write_text(help_page(), encoding="utf-8")
    (ROOT / "docs" / "configuration.md").write_text(configuration_page(), encoding="utf-8")
