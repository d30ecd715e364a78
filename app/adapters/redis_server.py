"""The way to a Redis: one server, one behind Sentinels, or a Cluster. What it must promise before anything is kept in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from redis import Redis, RedisCluster, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from app.errors import StoreAway

CONNECT_TIMEOUT_S = 1.0
ANSWER_TIMEOUT_S = 5.0  # an fsync on a busy disk takes seconds at worst
SENTINEL_PORT = 26379

Client = Any  # Redis | RedisCluster: their methods are the same here, and their types say of every answer that it may be awaited

# Setting of Redis -> the values that keep what was acknowledged.
DURABLE = {
    "appendonly": ("yes",),
    "appendfsync": ("always",),
    "no-appendfsync-on-rewrite": ("no",),
    "maxmemory-policy": ("noeviction",),
}


def connect(address: str) -> Client:
    """A client for redis://, rediss://, redis+cluster:// or redis+sentinel://host,host/service. Nothing is sent yet, but by a
    cluster's client, which asks who is there: StoreAway where nobody answers."""
    # Never again by itself: whether a commit may be sent a second time is for those to say who know what is in it.
    options = {
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": ANSWER_TIMEOUT_S,
    }
    with faults_named(address):
        if address.startswith("redis+sentinel://"):
            return _through_sentinels(address, options)
        if address.startswith("redis+cluster://"):
            return RedisCluster.from_url(address.replace("+cluster", "", 1), **options)
        return Redis.from_url(address, **options)


def weaknesses(client: Client, key: str) -> list[str]:
    """What the server that has this key is set to that could lose it, as `appendfsync is everysec, not always`."""
    asked = {"target_nodes": client.get_node_from_key(key)} if isinstance(client, RedisCluster) else {}  # type: ignore[no-untyped-call]
    found: dict[str, str] = {}
    for name in DURABLE:
        try:
            found |= client.config_get(name, **asked)
        except ResponseError as fault:  # such as of a managed Redis, which has no CONFIG
            return [f"its settings cannot be read ({fault})"]
    return [
        f"{name} is {found.get(name, 'not told')}, not {' or '.join(wanted)}"
        for name, wanted in DURABLE.items()
        if found.get(name) not in wanted
    ]


@contextmanager
def faults_named(address: str) -> Iterator[None]:
    """Whatever the client raises, as StoreAway without the password that is in the address."""
    try:
        yield
    except (RedisError, OSError) as fault:
        raise StoreAway(f"The store {without_password(address)} cannot be used: {fault}.") from fault


def without_password(address: str) -> str:
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _through_sentinels(address: str, options: dict[str, Any]) -> Client:
    parts = urlsplit(address)
    service, _, database = parts.path.removeprefix("/").partition("/")
    hosts = parts.netloc.rpartition("@")[2].split(",")
    sentinels = [(host.partition(":")[0], int(host.partition(":")[2] or SENTINEL_PORT)) for host in hosts]
    account = {"username": parts.username, "password": unquote(parts.password)} if parts.password else {}
    asked: Any = Sentinel(sentinels, sentinel_kwargs=options)  # type: ignore[no-untyped-call]  # redis-py gives it no types
    return asked.master_for(service, db=int(database or 0), **options, **account)
