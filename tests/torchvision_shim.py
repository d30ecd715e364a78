"""torchvision where its compiled part does not load: a build for CUDA cannot be imported beside torch for CPUs.

Declares two operators that nothing here calls, after which `models` works. An installation that is whole is left as it is.
"""

from __future__ import annotations

import pytest


def import_torchvision() -> None:
    """Skips the module that calls it where torchvision cannot be imported even so."""
    torch = pytest.importorskip("torch", reason="the extra `training` is not installed")
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        declared = torch.library.Library("torchvision", "DEF")  # never let go of: with it the operators would go
        for name in ("nms", "qnms"):
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(declared)
    except ImportError:
        pytest.skip("torchvision is not installed", allow_module_level=True)
    pytest.importorskip("torchvision.models", reason="torchvision cannot be imported", exc_type=(ImportError, RuntimeError))


_kept: list[object] = []
