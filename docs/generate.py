"""Writes the pages that are made from the code: `python -m docs.generate`. A test compares them with it."""

from __future__ import annotations

import json
from pathlib import Path

from app.main import create_app
from app.settings import Settings, settings_page

DOCS = Path(__file__).parent


def generated_pages() -> dict[str, str]:
    """File name in docs/ -> what belongs in it."""
    description = create_app(Settings()).openapi()
    return {
        "settings.md": settings_page(),
        "openapi.json": json.dumps(description, indent=1, ensure_ascii=False) + "\n",
    }


if __name__ == "__main__":
    for name, page in generated_pages().items():
        (DOCS / name).write_text(page)
