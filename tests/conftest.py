"""What tests share."""

import os

# Tensors of tests are small: a second thread only waits for the first. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("asr", deadline=None)
settings.load_profile("asr")
