from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.api.auth import KeyRing, Scope
from app.cli import THREAD_LIMITS, app
from demo.server import serving
from tests.model_sets import write_model_set

run = CliRunner().invoke


def serve(**settings: str) -> subprocess.CompletedProcess[str]:
    """`firstsight serve` where it ends by itself."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FIRSTSIGHT_")}
    environment |= {f"FIRSTSIGHT_{name}": value for name, value in {"PORT": "0", "STORE": "memory://", **settings}.items()}
    return subprocess.run([sys.executable, "-m", "app.cli", "serve"], env=environment, capture_output=True, text=True, timeout=60)


def test_a_new_key_is_printed_once_and_works(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"

    made = run(app, ["keys", "create", "shop-app", "--scope", "enrol", "--file", str(file)])

    key = KeyRing(file).find(made.stdout.strip())
    assert key is not None
    assert (key.id, key.scope) == ("shop-app", Scope.ENROL)


def test_keys_are_listed_and_revoked(tmp_path: Path) -> None:
    file = str(tmp_path / "keys.json")
    run(app, ["keys", "create", "shop-app", "--collection", "shop", "--rate", "50/second", "--file", file])
    run(app, ["keys", "create", "other", "--scope", "admin", "--file", file])

    before = run(app, ["keys", "list", "--file", file]).stdout.splitlines()
    run(app, ["keys", "revoke", "shop-app", "--file", file])

    assert before == ["shop-app\tread\tshop\t50/second", "other\tadmin\tdefault\t-"]
    assert run(app, ["keys", "list", "--file", file]).stdout.splitlines() == before[1:]
    assert run(app, ["keys", "revoke", "shop-app", "--file", file]).exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [["a", "--scope", "root"], ["not a name"], ["taken"], ["a", "--collection", "A/b"], ["a", "--rate", "often"]],
)
def test_a_key_that_cannot_be_made_is_told_in_a_sentence(tmp_path: Path, arguments: list[str]) -> None:
    file = tmp_path / "keys.json"
    run(app, ["keys", "create", "taken", "--file", str(file)])
    before = file.read_bytes()

    refused = run(app, ["keys", "create", *arguments, "--file", str(file)])

    assert refused.exit_code == 1
    assert refused.output.startswith("Settings cannot be used:")
    assert file.read_bytes() == before


@pytest.mark.parametrize("there", ["missing/k.json", "file/k.json"])
def test_a_key_file_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path, there: str) -> None:
    (tmp_path / "file").touch()

    refused = run(app, ["keys", "create", "shop-app", "--file", str(tmp_path / there)])

    assert refused.exit_code == 1
    assert refused.output.startswith("Settings cannot be used:")
    assert f"{tmp_path / there} cannot be written" in refused.output


# In place of serving, does what libraries share out among threads, and counts those that there are then.
COUNT_THREADS = """
import os, uvicorn

def count(server):
    import numpy as np
    from app.adapters.index_faiss import FaissIndex
    rows = np.ones((4096, 448), np.float32)
    rows @ rows.T
    FaissIndex(rows).search(rows[:64], 5, None)
    print(len(os.listdir("/proc/self/task")))

uvicorn.Server.run = count
from app.cli import app
app(["serve"])
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux shows them")
def test_libraries_start_no_threads_to_share_the_work_of_a_picture_whatever_the_environment_asks_for() -> None:
    def threads(asked_for: str) -> int:
        environment = os.environ | dict.fromkeys(THREAD_LIMITS, asked_for) | {"FIRSTSIGHT_STORE": "memory://"}
        counted = subprocess.run(
            [sys.executable, "-c", COUNT_THREADS], env=environment, capture_output=True, text=True, check=True
        )
        return int(counted.stdout)

    assert threads("4") == threads("1")


def test_no_library_keeps_or_sends_a_record_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("CI", raising=False)  # which has telemetry stay off by itself

    with serving({"STORE": "memory://", "MODELS_DIR": str(write_model_set(tmp_path / "models"))}) as live:
        assert live.http.get("/info").is_success

    assert not home.exists()


def test_wrong_settings_stop_the_start_by_name() -> None:
    stopped = serve(PORT="http", DEVICE="tpu")

    assert stopped.returncode == 1
    assert "FIRSTSIGHT_PORT=http" in stopped.stderr
    assert "FIRSTSIGHT_DEVICE=tpu" in stopped.stderr
    assert "Traceback" not in stopped.stderr


def test_a_model_set_that_is_not_there_stops_the_start_by_its_file(tmp_path: Path) -> None:
    stopped = serve(MODELS_DIR=str(tmp_path))

    assert stopped.returncode == 1
    assert "manifest.json" in stopped.stderr
    assert "Traceback" not in stopped.stderr


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_a_good_end(tmp_path: Path, stop: signal.Signals) -> None:
    models = write_model_set(tmp_path / "models")

    with serving({"STORE": "memory://", "MODELS_DIR": str(models)}) as live:
        assert live.http.get("/healthz").is_success
        live.process.send_signal(stop)

        assert live.process.wait(30) == 0
