"""Writes what is made from the code: `python -m docs.generate`. A test compares the files with it."""

from __future__ import annotations

import json
from pathlib import Path

from app.main import create_app
from app.settings import Settings, settings_table

ROOT = Path(__file__).parent.parent
SETTINGS = ("<!-- settings: made by `make docs` -->\n", "<!-- end of settings -->\n")


def generated_files() -> dict[str, str]:
    """Path in the project -> what belongs in it."""
    description = create_app(Settings()).openapi()
    return {
        "README.md": with_settings((ROOT / "README.md").read_text()),
        "docs/openapi.json": json.dumps(description, indent=1, ensure_ascii=False) + "\n",
    }


def with_settings(page: str) -> str:
    """The page with the table of settings between its marks."""
    before, rest = page.split(SETTINGS[0])
    _, after = rest.split(SETTINGS[1])
    return f"{before}{SETTINGS[0]}\n{settings_table()}\n{SETTINGS[1]}{after}"


if __name__ == "__main__":
    for name, text in generated_files().items():
        (ROOT / name).write_text(text)
