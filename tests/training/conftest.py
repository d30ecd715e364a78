"""The networks of these tests are tiny: more threads only wait for each other, most of all where something else computes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    try:
        import torch
    except ModuleNotFoundError:  # the extra `training` is not installed
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
