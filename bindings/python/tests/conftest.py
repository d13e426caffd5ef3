"""What the tests share."""

from __future__ import annotations

import pytest


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
