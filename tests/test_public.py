"""The public names of the package."""

import subprocess
import sys

import asr


def test_every_public_name_is_listed_and_can_be_imported():
    assert dir(asr) == sorted(asr.__all__)
    assert {"Recognizer", "Input", "DecodingOptions", "Transcript", "AsrError", "load_model"} <= set(dir(asr))
    for name in dir(asr):
        assert getattr(asr, name) is not None
    assert not hasattr(asr, "nonsense")


def test_importing_the_package_does_not_import_torch():
    code = "import sys, asr; dir(asr); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
