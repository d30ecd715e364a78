"""Class names for the shell's Tab key."""

from __future__ import annotations

import os

from app.client import DEFAULT_URL, Firstsight, FirstsightError

PATIENCE_S = 1.0  # of somebody who has pressed Tab


def class_names(incomplete: str) -> list[str]:
    url, key = os.environ.get("FIRSTSIGHT_URL", DEFAULT_URL), os.environ.get("FIRSTSIGHT_API_KEY")
    try:
        with Firstsight(url, key=key, retries=0, timeout_s=PATIENCE_S) as firstsight:
            return [one.class_name for one in firstsight.classes() if one.class_name.startswith(incomplete)]
    except FirstsightError:
        return []  # no completion is no fault
