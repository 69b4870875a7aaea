"""Fixtures of the tests of public models."""

import pytest
from public_models import WRITERS


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    """A folder in the hub's layout and the model of transformers, by family. Tests change only copies."""
    root = tmp_path_factory.mktemp("public")
    return {family: (root / family, write(root / family)) for family, write in WRITERS.items()}
