"""The drill for the day on which it counts: a service loses its store, and goes on from a backup, for those who call it too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.backup import back_up, restore
from app.main import open_store
from tests.api.drawings import ACME, OTHER, STRANGE, form
from tests.conftest import MakeClient
from tests.faults.test_redis_gone import until
from tests.redis_servers import needs_redis, redis_server


def enrol(client: TestClient, name: str, picture: bytes) -> str:
    """The X-Version that the caller is told."""
    response = client.post(f"/classes/{name}/examples", files=form(picture))
    assert response.status_code == 201
    return response.headers["X-Version"]


def assert_is_as_backed_up(client: TestClient, *, seen: str) -> None:
    """Classes, crops and answers are those of the backup; who has seen a later version of the lost store is not kept waiting."""
    told = client.get("/classes", headers={"X-Min-Version": seen})
    assert told.status_code == 200
    assert [each["class"] for each in told.json()["classes"]] == ["acme", "other"]
    assert int(told.headers["X-Version"].partition("-")[0]) > int(seen.partition("-")[0])  # another epoch
    assert client.post("/classify", files=form(ACME)).json()["decision"] == "acme"
    (example,) = client.get("/classes/acme/examples").json()["examples"]
    assert client.get(f"/classes/acme/examples/{example['id']}/image").status_code == 200


def test_a_service_on_a_file_that_was_lost_goes_on_from_its_backup(make_client: MakeClient, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/here.db"
    store = open_store(address)
    client = make_client(on_store=store, store=address)
    enrol(client, "acme", ACME)
    enrol(client, "other", OTHER)
    back_up(address, "default", tmp_path / "backup.db")
    seen = enrol(client, "later", STRANGE)
    store.close()  # as by the end of its service
    for file in tmp_path.glob("here.db*"):
        file.unlink()

    restore(tmp_path / "backup.db", address, "default", replace=False)
    again = make_client(on_store=open_store(address), store=address)
    assert_is_as_backed_up(again, seen=seen)
    assert enrol(again, "later", STRANGE) > seen


@needs_redis
@pytest.mark.parametrize("lost", [lambda client: client.flushall(), lambda client: None], ids=["emptied", "as it is"])
def test_replicas_on_a_redis_that_is_restored_agree_on_the_backup_without_a_restart(
    make_client: MakeClient, tmp_path: Path, lost: Callable[[object], object]
) -> None:
    with redis_server(tmp_path / "redis") as server:
        replicas = [make_client(on_store=open_store(server.address), store=server.address) for _ in range(2)]
        enrol(replicas[0], "acme", ACME)
        enrol(replicas[1], "other", OTHER)
        back_up(server.address, "default", tmp_path / "backup.db")
        seen = enrol(replicas[0], "later", STRANGE)
        lost(server.client)

        restore(tmp_path / "backup.db", server.address, "default", replace=True)
        for replica in replicas:
            until(lambda replica=replica: len(replica.get("/classes").json()["classes"]) == 2)  # type: ignore[misc]
            assert_is_as_backed_up(replica, seen=seen)
        models = {replica.get("/classes/acme").headers["X-Class-Model"] for replica in replicas}
        assert len(models) == 1
        later = enrol(replicas[1], "later", STRANGE)
        assert replicas[0].get("/classes/later", headers={"X-Min-Version": later}).status_code == 200
