"""Every setting, from the environment variables FIRSTSIGHT_*, checked at the start with all faults named at once.

Read in `main.py` and `cli.py` only; what is below them is given the values it needs. README.md has a table made from this file.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import InvalidSettings

PREFIX = "FIRSTSIGHT_"
OF_CALLERS = frozenset({f"{PREFIX}URL", f"{PREFIX}API_KEY"})  # read by the commands that call a service
PASSWORD = re.compile("//.*@")  # with what else of an address stands before the host
RATE = r"^[1-9]\d{0,8}/(second|minute|hour|day)(;[1-9]\d{0,8}/(second|minute|hour|day))*$"
CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # "<quota> <period>" in microseconds, or "max <period>"


def allowed_cores() -> int:
    """the cores this process may use"""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = CGROUP_CPU_MAX.read_text().split()
    except OSError:
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))


class Settings(BaseSettings):
    """Defaults are for one machine and a local user. Descriptions give the unit and the reason."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, validate_default=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on. Anything but loopback needs `API_KEYS_FILE`.")
    port: int = Field(default=8000, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    store: str = Field(
        default="sqlite:///var/firstsight.db",
        description="Where classes, examples and their crops are kept: `sqlite:///relative/path`, `sqlite:////absolute/path`, or "
        "`memory://`, which forgets everything at the end. For several replicas a Redis: `redis://:password@host:port/0`, "
        "`rediss://` for TLS, `redis+sentinel://:password@host:port,host:port/service`, `redis+cluster://:password@host:port`.",
    )
    allow_weak_redis: bool = Field(
        default=False,
        description="Use a Redis that could lose what it acknowledges: one without `appendonly yes`, `appendfsync always`, "
        "`no-appendfsync-on-rewrite no` and `maxmemory-policy noeviction`, or one that does not tell.",
    )
    follow_every_s: float = Field(
        default=0.05,
        gt=0,
        le=60,
        description="Seconds between looks at a Redis for what other replicas have committed. A look costs Redis some 50 µs.",
    )
    store_images: Literal["crop", "none"] = Field(
        default="crop",
        description="`crop` keeps a picture of each example, so that new networks can embed it again and people can see it. With "
        "`none` only numbers are kept: a start under other networks is refused, and one under other points goes on without any.",
    )
    models_dir: Path = Field(
        default=Path("models"), description="Folder of the model set: `manifest.json` and the files that it names."
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="JSON file of API keys, made by `firstsight keys create`, re-read within a second. Without it, all may call.",
    )
    rate_limit: str | None = Field(
        default=None,
        pattern=RATE,
        description="How often a key may call that has no rate of its own, such as `50/second` or `50/second;10000/hour`; more "
        "is answered 429. With a Redis as the store all replicas count together.",
    )
    unknown_key_rate: str = Field(
        default="20/minute",
        pattern=RATE,
        description="How often keys that are unknown may come from one address; more is answered 429, and no longer 401. Counted "
        "like the rates of keys. A key that is right is let in all the same.",
    )
    trusted_proxies: str | None = Field(
        default=None,
        description="Addresses and networks of proxies, such as `10.0.0.5,172.18.0.0/16`, that say in `X-Forwarded-For` who "
        "called; `*` trusts whoever connects, where only a proxy can. Without it a proxy's own address counts as the caller's.",
    )
    audit_file: Path | None = Field(
        default=None,
        description="File to which each write adds a line of JSON, done or refused, with the name of its class. Without it the "
        "lines `write` in the log are all there is, which name none.",
    )
    allow_anonymous: bool = Field(
        default=False,
        description="Listen beyond loopback without keys all the same; for a machine whose network is closed otherwise.",
    )
    verify: Literal["auto", "always", "off"] = Field(
        default="auto",
        description="Verification of print by local features: `auto` skips it where the look alone makes a sure match, `always` "
        "is for every picture, `off` for none. The points of examples are kept in any case. With `off`, `/detect` finds only "
        "what a detector sees, and nothing where the model set has none.",
    )
    synthesis: Literal["on", "off"] = Field(
        default="on",
        description="Whether classes are fitted to what the delta-encoder makes of their examples, too. `off` shows its worth; "
        "thresholds and probabilities are calibrated with it. Changing it fits all classes again at the next start.",
    )
    detector: Literal["on", "off"] = Field(
        default="on",
        description="Whether the detector of the model set is used, where it has one. With `off` nothing of it is loaded or "
        "asked, at enrolment neither, and `/detect` finds print alone. On again, the next start has it see what was enrolled "
        "meanwhile.",
    )
    device: Literal["cpu", "cuda", "auto"] = Field(
        default="auto", description="Where the networks run. `auto` takes a GPU when the `gpu` extra is installed and finds one."
    )
    inference_threads: int = Field(
        default_factory=allowed_cores, ge=1, le=256, description="Pictures in the networks at once, one thread each."
    )
    decode_threads: int = Field(
        default_factory=allowed_cores,
        ge=1,
        le=256,
        description="Pictures decoded at once. Times `MAX_IMAGE_MEGAPIXELS` times 20 MB, this bounds the memory of decoding: a "
        "megapixel of most photographs takes up to 8 MB, of a progressive JPEG 10 to 12, of a transparent WebP 20.",
    )
    max_body_bytes: int = Field(
        default=32 * 2**20,
        ge=1024,
        description="Bytes of a request body; a longer one is refused on its headers. Three photographs of a phone.",
    )
    max_json_bytes: int = Field(
        default=8 * 2**20,
        ge=1024,
        description="Bytes of a JSON body. Base64 is parsed in one piece, and other requests wait meanwhile; multipart and raw "
        "bodies may be as long as `MAX_BODY_BYTES`.",
    )
    max_body_bytes_in_flight: int = Field(
        default=256 * 2**20,
        ge=1024,
        description="Bytes of all request bodies admitted at one time. They take two to three times that in memory: a body is "
        "there as it came and as the pictures in it, JSON as its text too.",
    )
    max_image_megapixels: float = Field(
        default=50.0, gt=0, le=1000, description="Million pixels of a picture, read off its header before decoding."
    )
    max_images_per_request: int = Field(default=32, ge=1, le=1000, description="Pictures of one enrolment or one batch.")
    max_examples_per_class: int = Field(
        default=1000,
        ge=1,
        description="Examples of one class; an enrolment that would make it more is refused. What an enrolment costs grows with "
        "them, because it fits its class whole.",
    )
    max_concurrent_requests: int = Field(
        default=64,
        ge=1,
        description="Requests admitted and not yet answered, a batch counting as its pictures; more are refused with 503. The "
        "last in line waits for all before it: `bench/results/README.md` has the CPU time of a picture.",
    )
    body_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="Seconds that a request body may fall behind `MIN_BODY_BYTES_PER_S` before the connection is closed.",
    )
    min_body_bytes_per_s: int = Field(
        default=16 * 1024,
        ge=1,
        description="Bytes a second that the sender of a body has to keep up. A slow mobile line has twice that.",
    )
    request_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="Seconds from the end of the request body to the answer; what is late is answered 503 and not worked on.",
    )
    shutdown_timeout_s: int = Field(
        default=20,
        ge=0,
        description="Seconds that running requests are given at a stop. Kubernetes kills after 30, Docker after 10 unless told.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least severity that is logged.")
    log_format: Literal["json", "console"] = Field(default="console", description="`json`: one object a line, for machines.")

    @field_validator("store")
    @classmethod
    def _is_known_store(cls, store: str) -> str:
        if not re.fullmatch(r"sqlite:///.+|memory://|(rediss?|redis\+cluster)://.+|redis\+sentinel://[^/]+/.+", store):
            raise ValueError(
                "must be sqlite:///relative/path, sqlite:////absolute/path, memory://, redis://host, rediss://host, "
                "redis+cluster://host or redis+sentinel://host/service"
            )
        if Path(store.removeprefix("sqlite:///")) == Path(":memory:"):
            raise ValueError("is no file but SQLite's memory, which forgets everything at the end; if that is meant, memory://")
        return store

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, proxies: str | None) -> str | None:
        for proxy in proxies.split(",") if proxies and proxies != "*" else ():
            try:
                ip_network(proxy.strip())
            except ValueError:
                raise ValueError(f"is a list of addresses and networks, or *; {proxy.strip()!r} is neither") from None
        return proxies

    # A rule between two settings stands at the later one, which pydantic checks after the other; so it is reported with the rest.

    @field_validator("allow_anonymous")
    @classmethod
    def _is_guarded(cls, allow_anonymous: bool, info: ValidationInfo) -> bool:
        host, keys_file = info.data.get("host", ""), info.data.get("api_keys_file")
        if "host" in info.data and not (is_loopback(host) or keys_file or allow_anonymous):
            raise ValueError(
                f"{PREFIX}HOST={host} is open to other machines: set {PREFIX}API_KEYS_FILE (see `firstsight keys create`), "
                f"or {PREFIX}ALLOW_ANONYMOUS=true if everybody on that network may change everything"
            )
        return allow_anonymous

    @field_validator("max_body_bytes_in_flight")
    @classmethod
    def _admits_one_body(cls, in_flight: int, info: ValidationInfo) -> int:
        if in_flight < info.data.get("max_body_bytes", 0):
            raise ValueError(f"must be {PREFIX}MAX_BODY_BYTES or more, or the longest body is never admitted")
        return in_flight

    @field_validator("max_concurrent_requests")
    @classmethod
    def _admits_one_batch(cls, concurrent: int, info: ValidationInfo) -> int:
        if concurrent < info.data.get("max_images_per_request", 0):
            raise ValueError(f"must be {PREFIX}MAX_IMAGES_PER_REQUEST or more, or the largest batch is never admitted")
        return concurrent


def read_settings() -> Settings:
    """The settings in the environment, or InvalidSettings with every fault in them."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    faults = [
        f"{variable}: there is no such setting; README.md has them all"
        for variable in sorted(os.environ)
        if variable.upper().startswith(PREFIX) and variable.upper() not in known | OF_CALLERS
    ]
    try:
        settings = Settings()
    except ValidationError as error:
        raise InvalidSettings([*faults, *_faults_in(error)]) from None
    if faults:
        raise InvalidSettings(faults)
    return settings


def settings_table() -> str:
    """A row for each setting, in Markdown, for the README."""
    rows = "\n".join(
        f"| `{PREFIX}{name.upper()}` | {_default_of(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    )
    return f"| variable | default | what it does |\n| --- | --- | --- |\n{rows}\n"


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name, which may mean any address
        return False


def _faults_in(error: ValidationError) -> Iterable[str]:
    for fault in error.errors():
        value = PASSWORD.sub("//***@", str(fault["input"]))
        yield f"{PREFIX}{str(fault['loc'][0]).upper()}={value}: {fault['msg'].removeprefix('Value error, ')}"


def _default_of(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return str(field.default_factory.__doc__)
    if field.default is None:
        return "none"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
