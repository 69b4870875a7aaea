"""Names are the field's terms: identifiers that earlier versions used instead must not return."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The left column of the table of words. English words such as `given` are allowed in sentences, not as names.
REPLACED = {
    *(
        "Texts",
        "said",
        "heard",
        "wanted",
        "ways",
        "faint",
        "doubtful",
        "branch",
        "seams",
        "products",
        "probe",
    ),
    *("hear", "picture", "Ending", "Standing", "Place", "tidy", "around_attention", "BEGIN", "END"),
}
FILES = sorted(
    path
    for folder in ("asr", "recipes", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != Path(__file__).name
)


def names(tree: ast.AST) -> set[str]:
    """All identifiers that a module defines or uses as variables, arguments, attributes and functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.arg | ast.keyword):
            found.add(node.arg or "")
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_replaced_name_is_used(path):
    assert not names(ast.parse(path.read_text(encoding="utf-8"))) & REPLACED


def test_there_are_files():
    assert len(FILES) > 100
