"""What counts as one photograph is shown or asked, never both; and a list says what it was drawn from."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra `training` is not installed")

from tests.training.packs import photograph, write_boxes, write_folder
from training.evaluate import draws, sources
from training.evaluate.draws import Plan, Population
from training.evaluate.near_duplicates import groups_of, perceptual_hashes

PLAN = Plan(way=2, shot=1, queries=15)


def population_at(path: Path) -> Population:
    items = sources.read_items(sources.Source("--data", path))
    return draws.population_of(items, groups_of(items, perceptual_hashes(sources.decoded(items))))


def drawn(population: Population, plan: Plan = PLAN, *, count: int = 40, seed: int = 0) -> draws.EpisodeList:
    return draws.draw(population, plan, usable=draws.can_be_shown(population, plan.shot), count=count, seed=seed)


@pytest.fixture
def folder(tmp_path: Path) -> Population:
    """Five classes of four photographs, all different."""
    pictures = {f"{name}/{n}.webp": photograph(10 * label + n) for label, name in enumerate("abcde") for n in range(4)}
    return population_at(write_folder(tmp_path / "folder", pictures))


def test_a_photograph_with_two_boxes_is_shown_or_asked_never_both(tmp_path: Path) -> None:
    # Photograph 0 has two boxes of class a, and one of b.
    boxes = [("0.webp", "a", [0, 0, 30, 30]), ("0.webp", "a", [30, 0, 30, 30]), ("0.webp", "b", [0, 30, 30, 30])]
    boxes += [("1.webp", "a", [0, 0, 40, 40]), ("2.webp", "b", [0, 0, 40, 40]), ("3.webp", "b", [9, 9, 40, 40])]
    write_boxes(tmp_path / "boxes", {f"{n}.webp": photograph(n) for n in range(4)}, boxes)
    population = population_at(tmp_path / "boxes")
    both = 0
    for episode in drawn(population, count=60).episodes:
        files = [{population.items[p].source.entry for p in part.ravel()} for part in (episode.shown, episode.asked)]
        assert files[0].isdisjoint(files[1])
        both += "0.webp" in files[0]
    assert 0 < both < 60  # else the test would say nothing


def test_near_duplicates_are_shown_or_asked_never_both(tmp_path: Path) -> None:
    twice = {"a/0.webp": photograph(0), "a/1.webp": photograph(0).resize((50, 50)), "a/2.webp": photograph(2)}
    others = {f"b/{n}.webp": photograph(20 + n) for n in range(3)}
    population = population_at(write_folder(tmp_path / "folder", twice | others))
    shown_twin = 0
    for episode in drawn(population).episodes:
        shown = {population.items[p].id for p in episode.shown.ravel()}
        asked = {population.items[p].id for p in episode.asked}
        twins = {"a/0.webp", "a/1.webp"}
        assert not (shown & twins and asked & twins)
        shown_twin += bool(shown & twins)
    assert 0 < shown_twin < 40


def test_shots_are_of_different_photographs(tmp_path: Path) -> None:
    boxes = [(f"{n}.webp", name, [30 * k, 0, 30, 30]) for n in range(3) for k, name in enumerate("aa")]
    boxes += [(f"{n}.webp", "b", [0, 0, 40, 40]) for n in range(3, 6)]
    write_boxes(tmp_path / "boxes", {f"{n}.webp": photograph(n) for n in range(6)}, boxes)
    population = population_at(tmp_path / "boxes")
    for episode in drawn(population, replace(PLAN, shot=2)).episodes:
        for positions in episode.shown:
            assert len(set(population.groups[positions])) == 2


def test_an_episode_has_what_the_plan_says(folder: Population) -> None:
    for episode in drawn(folder, replace(PLAN, queries=2)).episodes:
        assert (folder.labels[episode.shown] == episode.classes[:, np.newaxis]).all()
        assert folder.labels[episode.asked].tolist() == episode.classes.repeat(2).tolist()
        unknown = folder.labels[episode.unknown]
        assert not np.isin(unknown, episode.classes).any()
        assert sorted(np.bincount(unknown)[np.unique(unknown)]) == [2, 2]  # two more classes, as many as ways
    every = drawn(folder).episodes[0]
    assert len(every.asked) == 2 * 3  # all that remain


def test_there_are_unknown_classes_only_where_enough_are_left(folder: Population) -> None:
    assert draws.unknown_classes(folder, 2) == 2
    assert draws.unknown_classes(folder, 3) == 0
    assert all(len(episode.unknown) == 0 for episode in drawn(folder, replace(PLAN, way=3)).episodes)


def test_a_class_needs_a_photograph_more_than_it_shows(folder: Population) -> None:
    assert draws.can_be_shown(folder, 3).all()
    assert not draws.can_be_shown(folder, 4).any()
    assert draws.photographs_of(folder, 0) == (4, 4)


def test_classes_that_share_all_photographs_leave_nothing_to_ask(tmp_path: Path) -> None:
    boxes = [(f"{n}.webp", name, [30 * k, 0, 30, 30]) for n in range(2) for k, name in enumerate("ab")]
    write_boxes(tmp_path / "boxes", {f"{n}.webp": photograph(n) for n in range(2)}, boxes)
    with pytest.raises(ValueError, match="none is left to ask"):
        drawn(population_at(tmp_path / "boxes"))


def test_a_seed_gives_one_list_and_its_first_episodes_are_a_list_too(folder: Population) -> None:
    assert drawn(folder).sha256 == drawn(folder).sha256 != drawn(folder, seed=1).sha256
    assert drawn(folder, count=3).lines == drawn(folder).lines[:4]


def test_a_list_is_read_as_it_was_written(folder: Population, tmp_path: Path) -> None:
    listed, file = drawn(folder), tmp_path / "new" / "list.jsonl"
    draws.write(listed, file)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == listed.sha256
    read = draws.read(file, folder, PLAN, count=40)
    assert read.sha256 == listed.sha256
    for one, other in zip(read.episodes, listed.episodes, strict=True):
        assert all((getattr(one, part) == getattr(other, part)).all() for part in vars(one))
    assert draws.read(file, folder, PLAN, count=3).lines == listed.lines[:4]


def test_a_list_that_does_not_fit_is_refused(folder: Population, tmp_path: Path) -> None:
    file = tmp_path / "list.jsonl"
    draws.write(drawn(folder), file)
    for plan, count, why in ((replace(PLAN, shot=2), 40, "other shot"), (PLAN, 41, "has 40 episodes, not 41")):
        with pytest.raises(ValueError, match=why):
            draws.read(file, folder, plan, count=count)
    with pytest.raises(ValueError, match="other pictures"):
        draws.read(file, draws.population_of(folder.items[1:], folder.groups[1:]), PLAN, count=40)
    with pytest.raises(ValueError, match="episode 0 asks what counts as a photograph that it shows"):
        draws.read(file, replace(folder, groups=np.zeros_like(folder.groups)), PLAN, count=40)
    file.write_text("{}\n[]\n")
    with pytest.raises(ValueError, match="not an episode list"):
        draws.read(file, folder, PLAN, count=1)
