"""`python -m training <stage> [flags]`; `--help` after a stage prints its flags."""

from __future__ import annotations

import importlib
import sys

STAGES = {
    "embedding": "training.backbone",
    "discriminant": "training.discriminant",
    "export": "training.export",
    "warning-limits": "training.evaluate.warning_limits",
    "calibrate": "training.calibrate",
    "evaluate": "training.evaluate.few_shot",
    "served": "training.evaluate.served",
    "report": "training.evaluate.report",
}


def main() -> None:
    stage = sys.argv[1] if len(sys.argv) > 1 else ""
    if stage not in STAGES:
        sys.exit(f"usage: python -m training {{{','.join(STAGES)}}} [flags]")
    importlib.import_module(STAGES[stage]).main(sys.argv[2:])


if __name__ == "__main__":
    main()
