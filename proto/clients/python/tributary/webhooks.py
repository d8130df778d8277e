"""Verifies what a node sends to a webhook endpoint.

Source: Standard Webhooks 1.0.0, "Signature scheme", symmetric.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from typing import Any, Mapping

_PREFIX = "whsec_"


class WebhookRefused(Exception):
    """A delivery that is not the node's, or too old. Answer it with 400."""


def verify_webhook(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    tolerance: float = 300.0,
    now: float | None = None,
) -> dict[str, Any]:
    """Returns the delivery, `{"type", "timestamp", "data"}`, once it is surely the node's.

    `secret` is what `Webhooks.Create` returned, `whsec_…`; `body` the very bytes that came.
    A delivery comes again after a failure, under the same `webhook-id`: keep the ids that were
    dealt with.

    Raises `WebhookRefused`.
    """
    found = {name.lower(): value for name, value in headers.items()}
    try:
        name, sent_at = found["webhook-id"], found["webhook-timestamp"]
        signatures = found["webhook-signature"].split(" ")
    except KeyError as missing:
        raise WebhookRefused(f"the header {missing.args[0]} is missing") from None
    if not sent_at.isascii() or not sent_at.isdigit():
        raise WebhookRefused("webhook-timestamp is no number")
    age = (time.time() if now is None else now) - int(sent_at)
    if abs(age) > tolerance:
        raise WebhookRefused(f"it was signed {age:.0f} s ago")
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("the secret is not as the node wrote it") from None
    signed = b".".join([name.encode(), sent_at.encode(), body])
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    # While a secret is replaced both sign.
    matching = [s for s in signatures if hmac.compare_digest(s.encode(), f"v1,{expected}".encode())]
    if not matching:
        raise WebhookRefused("no signature is by this secret")
    return json.loads(body)
