"""Calls of a node, by gRPC."""

from __future__ import annotations

import importlib
import os
import random
import time
import uuid
from typing import Any, Callable, Iterable, Iterator

import grpc

from .connection import Connection
from .errors import OutcomeUnknown, TributaryError
from .v1 import events_pb2

_SERVICES = {
    "node": "Node",
    "channels": "Channels",
    "payments": "Payments",
    "batches": "Batches",
    "wallet": "Wallet",
    "events": "Events",
    "tower": "Tower",
    "tokens": "Tokens",
    "webhooks": "Webhooks",
    "payouts": "Payouts",
}
_LIVENESS = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A connection that broke is tried again soon: retries wait by themselves.
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


class Client:
    """A node. Each service is an attribute with its methods: `client.payments.Pay(request)`.

    Every method takes `timeout`, in seconds. An error is a `TributaryError`.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        token = grpc.access_token_call_credentials(connection.token)
        tls = grpc.ssl_channel_credentials(root_certificates=connection.certificate)
        credentials = grpc.composite_channel_credentials(tls, token)
        self._channel = grpc.secure_channel(connection.rpc, credentials, options=_LIVENESS)
        for name, service in _SERVICES.items():
            module = importlib.import_module(f"tributary.v1.{name}_pb2_grpc")
            setattr(self, name, _Service(getattr(module, f"{service}Stub")(self._channel)))

    @classmethod
    def connect(cls, path: str | os.PathLike[str]) -> Client:
        """Connects to the node of a data directory, or of a connection file."""
        return cls(Connection.read(path))

    def close(self) -> None:
        """Ends the connection; what was begun goes on."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def surely(
        self,
        method: Callable[..., Any],
        request: Any,
        *,
        patience: float = 60.0,
        timeout: float | None = None,
    ) -> Any:
        """Makes a call that changes something once, however often it takes to hear its outcome.

        A request without an idempotency key gets a fresh one, in place. After a lost answer, and
        while the node is starting or busy, the call is repeated under the same key, for
        `patience` seconds.

        Raises `OutcomeUnknown`, which has the key, if that does not help, and any other
        `TributaryError` at once.
        """
        if not request.idempotency_key:
            request.idempotency_key = uuid.uuid4().hex
        deadline = time.monotonic() + patience
        pause, may_have_begun = 0.1, False
        while True:
            try:
                return method(request, timeout=timeout)
            except TributaryError as error:
                may_have_begun = may_have_begun or error.is_outcome_unknown
                wait = max(error.retry_after or 0.0, pause * random.uniform(0.5, 1.0))
                if error.is_passing and time.monotonic() + wait < deadline:
                    time.sleep(wait)
                    pause = min(pause * 2, 5.0)
                    continue
                if error.is_outcome_unknown or (error.is_passing and may_have_begun):
                    raise OutcomeUnknown(error, request.idempotency_key) from error
                raise

    def follow(
        self,
        after: int | None = None,
        kinds: Iterable[int] = (),
        *,
        patience: float = 60.0,
    ) -> Iterator[events_pb2.Event]:
        """Yields events after a sequence, then new ones as they come, over lost connections.

        `after` is the sequence of the last event that is known, 0 for the whole log; without it
        only what is yet to come. Store the sequence of each event with what it changed, and
        nothing is told twice or left out. While nothing is heard for `patience` seconds of
        failures, the error is raised; one that a later try cannot mend, at once.
        """
        last, pause, failing_since = after, 0.1, None
        while True:
            if last is None:
                # Without a place a cut would leave events out.
                from .v1 import node_pb2

                info = self._told(self.node.GetInfo, node_pb2.GetInfoRequest(), patience)
                last = info.newest_event_sequence
            request = events_pb2.SubscribeRequest(after_sequence=last, kinds=list(kinds))
            try:
                for event in self.events.Subscribe(request):
                    last, pause, failing_since = event.sequence, 0.1, None
                    yield event
            except TributaryError as error:
                now = time.monotonic()
                failing_since = now if failing_since is None else failing_since
                if not error.is_passing or now - failing_since > patience:
                    raise
            time.sleep(pause)
            pause = min(pause * 2, 5.0)

    def _told(self, method: Callable[..., Any], request: Any, patience: float) -> Any:
        deadline = time.monotonic() + patience
        while True:
            try:
                return method(request)
            except TributaryError as error:
                if not error.is_passing or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)


class _Service:
    """A stub whose errors are typed."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._stub, name)

        def call(request: Any, timeout: float | None = None) -> Any:
            try:
                answer = method(request, timeout=timeout)
            except grpc.RpcError as error:
                raise TributaryError.of(error) from error
            return _Stream(answer) if hasattr(answer, "initial_metadata") else answer

        return call


class _Stream:
    """A stream of answers whose errors are typed."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            raise TributaryError.of(error) from error

    def cancel(self) -> None:
        """Ends it; what the call began goes on."""
        self._call.cancel()
