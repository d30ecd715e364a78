"""Two processes under torchrun take the steps that one process takes on the whole batch, and end together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from safetensors.torch import load_file  # noqa: E402

from tests.training import two_detectors, two_ranks  # noqa: E402
from tests.training.packs import draw_detector_packs  # noqa: E402
from training import ranks, run  # noqa: E402


def run_twice(module: str, folder: Path) -> None:
    """As two ranks under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    subprocess.run([*command, "-m", module, str(folder)], check=True, cwd=root, env=environment, timeout=110)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks left of three runs."""
    folder = tmp_path_factory.mktemp("ranks")
    run_twice("tests.training.two_ranks", folder)
    return folder


def steps_of(run: Path, term: str = "square") -> list[int]:
    return [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines() if term in line]


@pytest.mark.parametrize("name", ["same", "told", "timed"])
def test_both_ranks_end_with_the_same_weights_and_one_wrote_them(folder: Path, name: str) -> None:
    one, other = (load_file(folder / f"rank{rank}.safetensors")[name] for rank in (0, 1))
    assert torch.equal(one, other)
    assert torch.equal(one, load_file(folder / name / "checkpoint.safetensors")["learner.weight"])
    assert len(set(steps_of(folder / name))) == len(steps_of(folder / name))


def test_half_a_batch_each_makes_the_steps_of_the_whole_batch(folder: Path, tmp_path: Path) -> None:
    alone = two_ranks.learner()
    two_ranks.train(two_ranks.Config(tmp_path), alone)
    assert torch.allclose(load_file(folder / "rank0.safetensors")["same"], alone.weight, atol=1e-6)
    assert not torch.allclose(two_ranks.learner().weight, alone.weight, atol=1e-2)


def test_each_rank_draws_something_else(folder: Path) -> None:
    one, other = (load_file(folder / f"rank{rank}.safetensors")["drawn"] for rank in (0, 1))
    assert one != other


def test_told_to_stop_one_rank_takes_the_other_along_after_the_same_step(folder: Path) -> None:
    assert steps_of(folder / "told")[-1] == 3  # rank 1 was told while it drew for the fourth, which is not logged
    assert [int(load_file(folder / f"rank{rank}.safetensors")["ended"]) for rank in (0, 1)] == [143, 143]


def test_a_checkpoint_of_two_ranks_is_gone_on_with_by_one(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes((folder / "same" / "checkpoint.safetensors").read_bytes())
    two_ranks.train(two_ranks.Config(tmp_path, steps=5), two_ranks.learner())
    assert steps_of(tmp_path) == [4, 5]


def test_two_ranks_train_one_detector(tmp_path: Path) -> None:
    draw_detector_packs(tmp_path / "packs")
    run_twice("tests.training.two_detectors", tmp_path)
    one, other = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1))
    terms = one.pop("terms"), other.pop("terms")  # (steps, terms) each
    assert all(len(each) == two_detectors.STEPS and bool(each.isfinite().all()) for each in terms)
    assert not torch.equal(*terms)  # each learns from scenes of its own
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    kept = run.without_prefix("learner", load_file(tmp_path / "run" / "checkpoint.safetensors"))
    assert [name for name in one if not torch.equal(one[name], kept[name])] == []
    assert len(steps_of(tmp_path / "run", "objectness")) == two_detectors.STEPS  # one of them wrote


def test_a_batch_that_ranks_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks.own_share(127) == 127
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert ranks.own_share(12) == 4
    with pytest.raises(SystemExit, match=r"--batch 128: shared by 3 ranks, .* multiple of 6"):
        ranks.own_share(128)
