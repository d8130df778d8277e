"""A client of Tributary nodes.

    from tributary import Client
    from tributary.v1 import node_pb2

    with Client.connect("~/.tributary/regtest") as client:
        print(client.node.GetInfo(node_pb2.GetInfoRequest()).alias)

`client` calls, `errors` says why a call was refused, `webhooks` verifies what a node sends.
"""

from .client import Client
from .connection import Connection
from .errors import OutcomeUnknown, TributaryError
from .webhooks import WebhookRefused, verify_webhook

__all__ = [
    "Client",
    "Connection",
    "OutcomeUnknown",
    "TributaryError",
    "WebhookRefused",
    "verify_webhook",
]
