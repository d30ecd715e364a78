"""Every error Firstsight raises on purpose. The branch says whose fault it is, and so whether a retry can help.

    FirstsightError
    ├── CallerError                 the request is wrong; the same request will fail again
    │   ├── MalformedRequest        unreadable HTTP, multipart or JSON
    │   ├── InvalidInput            readable, but a field breaks a limit
    │   │   ├── InvalidPicture      a known format that cannot be used: truncated, animated, too small
    │   │   └── KeyReused           an Idempotency-Key that stands for another request
    │   ├── UnsupportedPicture      no known picture format
    │   ├── TooLarge                more bytes or pixels than accepted
    │   ├── Unauthenticated, Forbidden
    │   ├── NotFound                UnknownClass, UnknownExample, UnknownRoute
    │   ├── MethodNotAllowed
    │   ├── NameTaken
    │   └── VersionConflict         somebody else changed the class first
    ├── LimitReached                ours, and passing: try again later
    │   ├── Starting                not ready yet
    │   ├── Overloaded
    │   ├── RateExceeded            a key calls more often than it may
    │   ├── UnknownKeys             keys that are none come from one address more often than they may
    │   ├── KeyInProgress           the request with this Idempotency-Key has not been answered yet
    │   ├── Behind                  this replica has not yet seen the version that is asked for
    │   └── DeadlinePassed
    └── ServiceFault                ours: an operator must look
        ├── StoreUnavailable
        │   └── StoreAway           it may come back by itself, so a start waits for it
        │       └── StoreTooWeak    it answers, and could lose what it acknowledges
        ├── LogTrimmed              a follower fell behind the log, or the log was replaced: read a snapshot
        ├── CorruptModelSet
        ├── IncompatibleStore
        ├── BackupRefused           a backup that cannot be made, or put where it should go
        └── InvalidSettings

The message is made from the fields, so that two places never word one fault differently. No HTTP here:
`api/problems.py` has the statuses.
"""

from __future__ import annotations

from collections.abc import Sequence

Limit = int | float | str


class FirstsightError(Exception):
    """Root of the tree. `detail` is a sentence for people, `field` and `limit` are for programs."""

    def __init__(self, detail: str, *, field: str | None = None, limit: Limit | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.limit = limit


class CallerError(FirstsightError):
    pass


class MalformedRequest(CallerError):
    pass


class InvalidInput(CallerError):
    pass


class InvalidPicture(InvalidInput):
    pass


class KeyReused(InvalidInput):
    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was sent with another request: take a new key for each write, and the same for its retries.",
            field="Idempotency-Key",
        )


class UnsupportedPicture(CallerError):
    pass


class TooLarge(CallerError):
    pass


class Unauthenticated(CallerError):
    pass


class Forbidden(CallerError):
    pass


class NotFound(CallerError):
    pass


class UnknownClass(NotFound):
    def __init__(self, class_name: str) -> None:
        super().__init__(f"There is no class {class_name!r}.", field="name")


class UnknownExample(NotFound):
    def __init__(self, class_name: str, example_id: str) -> None:
        super().__init__(f"Class {class_name!r} has no example {example_id!r}.", field="id")


class UnknownRoute(NotFound):
    def __init__(self, path: str) -> None:
        super().__init__(f"There is nothing at {path}: see /openapi.json for the routes.")


class MethodNotAllowed(CallerError):
    def __init__(self, method: str, *, allowed: str) -> None:
        super().__init__(f"{method} is not offered here, only {allowed}.", limit=allowed)


class NameTaken(CallerError):
    def __init__(self, class_name: str) -> None:
        super().__init__(f"A class named {class_name!r} exists already.", field="name")


class VersionConflict(CallerError):
    def __init__(self, class_name: str, *, expected: int, found: int) -> None:
        super().__init__(f"Class {class_name!r} is at version {found}, not {expected}: read it again.", limit=found)
        self.class_name = class_name
        self.expected = expected
        self.found = found


class LimitReached(FirstsightError):
    """`retry_after_s` is when trying again makes sense, in whole seconds."""

    def __init__(self, detail: str, *, retry_after_s: int = 1, limit: Limit | None = None) -> None:
        super().__init__(detail, limit=limit)
        self.retry_after_s = retry_after_s


class Starting(LimitReached):
    def __init__(self, waiting_for: str) -> None:
        super().__init__(f"The service is starting and waits for {waiting_for}.")


class Overloaded(LimitReached):
    pass


class RateExceeded(LimitReached):
    def __init__(self, key_id: str, rate: str, *, retry_after_s: int) -> None:
        super().__init__(f"The key {key_id!r} may call {rate}.", limit=rate, retry_after_s=retry_after_s)


class UnknownKeys(LimitReached):
    def __init__(self, rate: str, *, retry_after_s: int) -> None:
        super().__init__(f"Unknown keys come from this address more often than {rate}.", limit=rate, retry_after_s=retry_after_s)


class KeyInProgress(LimitReached):
    def __init__(self) -> None:
        super().__init__("The request with this Idempotency-Key is still at work: send it again to hear what came of it.")


class Behind(LimitReached):
    def __init__(self, *, wanted: str, found: str) -> None:
        super().__init__(f"This replica is at version {found}, not yet at {wanted}.", limit=found)


class DeadlinePassed(LimitReached):
    pass


class ServiceFault(FirstsightError):
    pass


class StoreUnavailable(ServiceFault):
    pass


class StoreAway(StoreUnavailable):
    pass


class StoreTooWeak(StoreAway):
    pass


class LogTrimmed(ServiceFault):
    pass


class CorruptModelSet(ServiceFault):
    pass


class IncompatibleStore(ServiceFault):
    pass


class BackupRefused(ServiceFault):
    pass


class InvalidSettings(ServiceFault):
    """All faults of the settings at once, one a line, each naming its variable."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("Settings cannot be used:\n" + "\n".join(f"  {fault}" for fault in faults))
        self.faults = tuple(faults)
