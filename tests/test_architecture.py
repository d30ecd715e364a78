"""The import rule: who may import whom, which outside library lives where, and no circles."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for package in ("app", "training")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name != "__init__.py"
}

# Importer -> what it may import of ours. On the left the longest prefix decides; on the right a prefix covers what is below it.
LEAVES = ("app.metrics", "app.logs")
ALLOWED = {
    "app.main": ("app",),
    "app.cli": ("app",),
    "app.backup": ("app.adapters", "app.service", "app.errors", "app.main"),
    "app.server": ("app.api", "app.errors"),
    "app.api": ("app.api", "app.service", "app.domain", "app.errors", *LEAVES),
    "app.service": ("app.service", "app.domain", "app.errors", *LEAVES),
    "app.adapters": ("app.adapters", "app.domain", "app.errors", *LEAVES),
    "app.domain": ("app.domain", "app.errors"),
    "app.client": (),
    "app.commands": ("app.commands", "app.client", "app.domain.scoring"),  # the other side of the wire
    "app.commands.here": ("app.commands", "app.client", "app.settings", "app.errors", "app.adapters.model_set"),
    "app.settings": ("app.errors",),
    "app.errors": (),
    "app.metrics": (),
    "app.logs": (),
    "training": ("training", "app.domain"),
    # What is measured, calibrated and exported is what ships, down to the decoder.
    **dict.fromkeys(
        (
            "training.export",
            "training.export_detector",
            "training.calibrate",
            "training.points",
            "training.features",
            "training.synthesizer",
            "training.evaluate",
        ),
        ("training", "app.domain", "app.adapters", "app.errors"),
    ),
    "training.fit": ("training", "app.domain", "app.adapters", "app.errors"),
    "training.proofs": ("training", "app.domain", "app.adapters", "app.service"),
    "training.regions": ("training", "app.domain", "app.adapters", "app.service", "app.errors"),
    "training.evaluate.in_process": ("training", "app"),  # the whole service, asked without HTTP
}

# Outside library -> where alone in app/ it may be imported.
AT_HOME = {
    "PIL": ("app.adapters.images", "app.commands.drawing"),
    "httpx": ("app.client",),
    "onnxruntime": ("app.adapters.networks",),
    "faiss": ("app.adapters.index_faiss",),
    "cv2": ("app.adapters.local_features", "app.adapters.warp"),
    "sqlite3": ("app.adapters.store_sqlite",),
    "limits": ("app.adapters.rates",),
    "redis": ("app.adapters.store_redis", "app.adapters.redis_server"),
    "fastapi": ("app.api", "app.main"),
    "starlette": ("app.api", "app.main", "app.server"),
    "uvicorn": ("app.server",),
    "typer": ("app.cli", "app.commands"),
    "rich": ("app.commands",),
    "pydantic_settings": ("app.settings",),
    "prometheus_client": ("app.metrics",),
    "structlog": ("app.logs",),
    "numpy": ("app.domain", "app.service", "app.adapters", "app.main"),
    "torch": (),
    "torchvision": (),
}


def is_under(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, wherever it stands: in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield from (full if (full := f"{base}.{alias.name}") in MODULES else base for alias in node.names)


IMPORTS = {module: set(imports_of(path)) for module, path in MODULES.items()}
OURS = {module: {name for name in names if is_under(name, ("app", "training"))} for module, names in IMPORTS.items()}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    layer = max((prefix for prefix in ALLOWED if is_under(module, (prefix,))), key=len, default=None)
    assert layer, f"{module} belongs to no layer: give it a line in ALLOWED or a better place"
    too_many = {name for name in OURS[module] if not is_under(name, ALLOWED[layer])}
    assert not too_many, f"{module} imports {sorted(too_many)}; {layer} may import only {ALLOWED[layer] or 'nothing of ours'}"


@pytest.mark.parametrize("module", [module for module in MODULES if is_under(module, ("app",))])
def test_an_outside_library_is_imported_in_its_home_only(module: str) -> None:
    for name in {name.partition(".")[0] for name in IMPORTS[module]} & AT_HOME.keys():
        assert is_under(module, AT_HOME[name]), f"{module} imports {name}, which belongs in {AT_HOME[name] or 'training'}"


@pytest.mark.parametrize("module", [module for module in MODULES if is_under(module, ("app.domain",))])
def test_the_domain_knows_numpy_and_the_standard_library_only(module: str) -> None:
    outside = {name.partition(".")[0] for name in IMPORTS[module] - OURS[module]} - sys.stdlib_module_names
    assert outside <= {"numpy"}, f"{module} imports {sorted(outside - {'numpy'})}"


def test_imports_make_no_circle() -> None:
    try:
        TopologicalSorter(OURS).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_package_files_are_empty() -> None:
    # Import from where a thing lives, so that the tree is the index.
    package_files = [path for package in ("app", "training") for path in (ROOT / package).rglob("__init__.py")]
    assert [str(path) for path in package_files if path.read_text()] == []
