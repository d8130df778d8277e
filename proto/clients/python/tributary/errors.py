"""Why a call was refused."""

from __future__ import annotations

from typing import Mapping

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

DOMAIN = "tributary"


class TributaryError(Exception):
    """A call that was refused, or did not come to an answer."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{reason or code.name}: {message}")
        self.code = code
        """The code of gRPC."""
        self.message = message
        """A sentence that names the values."""
        self.reason = reason
        """Why, for programs, such as `INVOICE_EXPIRED`; it keeps its name for good. `None` if the
        node said nothing, as when the connection broke."""
        self.metadata = dict(metadata or {})
        """The numbers that the message names, by key."""

    @property
    def remedy(self) -> str | None:
        """What to do."""
        return self.metadata.get("remedy")

    @property
    def money_may_have_moved(self) -> bool | None:
        """Whether it may; `None` if the node did not say. Then only the same call with the same
        idempotency key tells what became of it."""
        said = self.metadata.get("money_may_have_moved")
        return None if said is None else said == "true"

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the call may be repeated, if the node says."""
        said = self.metadata.get("retry_after_ms")
        return None if said is None else int(said) / 1000

    @property
    def is_outcome_unknown(self) -> bool:
        """Whether this very call may have been carried out although there is no answer to it.

        A refusal for good, such as `INVOICE_ALREADY_PAID`, is an answer, also where money has moved
        by another call.
        """
        if self.reason is None:
            return self.code in _LOST
        return self.code in _UNSURE and self.money_may_have_moved is not False

    @property
    def is_passing(self) -> bool:
        """Whether the same call, with its key, may do better a little later."""
        if self.reason is None:
            return self.code in _LOST
        return self.reason in _PASSING

    @classmethod
    def of(cls, error: grpc.RpcError) -> TributaryError:
        """Reads what the node said with an error."""
        code, details = error.code(), error.details() or ""
        try:
            status = rpc_status.from_call(error)
        except ValueError:
            status = None
        for detail in status.details if status else ():
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.domain == DOMAIN:
                return cls(code, details, info.reason, info.metadata)
        return cls(code, details)


class OutcomeUnknown(TributaryError):
    """Repeating a call did not help, and nobody can tell whether it was carried out.

    `key` is its idempotency key: the same call with it, at any time in the next 30 days, gives
    the outcome and does nothing twice.
    """

    def __init__(self, last: TributaryError, key: str) -> None:
        super().__init__(last.code, last.message, last.reason, last.metadata)
        self.key = key


_LOST = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
    }
)
_UNSURE = frozenset({grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL})
_PASSING = frozenset(
    {"STARTING", "STOPPING", "RATE_LIMITED", "OVERLOADED", "DEADLINE_PASSED", "TOO_MANY_IN_FLIGHT"}
)
