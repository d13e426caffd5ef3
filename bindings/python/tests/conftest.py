"""Settings of all tests."""

from __future__ import annotations

import os

import pytest

try:
    from hypothesis import settings
except ImportError:
    pass
else:
    # The same cases in every run; HYPOTHESIS_PROFILE=default looks for others.
    settings.register_profile("same", derandomize=True, deadline=None)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test draws the same numbers, whatever ran before it."""
    import numpy

    numpy.random.seed(0)
    try:
        import torch
    except ImportError:
        return
    torch.manual_seed(0)
