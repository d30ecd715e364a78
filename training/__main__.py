"""`python -m training <stage> [flags]`; `--help` after a stage prints its flags."""

from __future__ import annotations

import importlib
import sys

STAGES = {
    "embedding": "training.backbone",
    "mini-imagenet": "training.mini_imagenet",
    "benchmark": "training.benchmark",
    "detector": "training.detector",
    "features": "training.features",
    "delta-encoder": "training.delta_encoder",
    "synthesizer": "training.synthesizer",
    "discriminant": "training.discriminant",
    "export": "training.export",
    "export-detector": "training.export_detector",
    "warning-limits": "training.evaluate.warning_limits",
    "fit": "training.fit",
    "points": "training.points",
    "calibrate": "training.calibrate",
    "proofs": "training.proofs",
    "regions": "training.regions",
    "evaluate classify": "training.evaluate.classify",
    "evaluate tasks": "training.evaluate.few_shot",
    "evaluate synthesis": "training.evaluate.synthesis",
    "evaluate false-accepts": "training.evaluate.false_accepts",
    "evaluate brands": "training.evaluate.brands",
    "evaluate scan": "training.evaluate.scan",
    "evaluate composites": "training.evaluate.composites",
    "evaluate detect": "training.evaluate.detection",
    "evaluate base-classes": "training.evaluate.base_classes",
    "evaluate repmet": "training.evaluate.repmet_classifier",
    "report": "training.evaluate.report",
}


def main() -> None:
    words = 2 if sys.argv[1:2] == ["evaluate"] else 1
    stage = " ".join(sys.argv[1 : 1 + words])
    if stage not in STAGES:
        sys.exit(f"usage: python -m training {{{','.join(STAGES)}}} [flags]")
    importlib.import_module(STAGES[stage]).main(sys.argv[1 + words :])


if __name__ == "__main__":
    main()
