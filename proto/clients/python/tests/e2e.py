"""What the Python client does from end to end. `cargo test -p node --test clients` runs it.

    e2e.py ALICE BOB

Both are data directories of running nodes; alice has a channel to bob. It prints `kill` and `start`
when alice is to be killed and started again, and waits for a line each time.
"""

import http.client
import http.server
import json
import ssl
import sys
import threading

from tributary import Client, Connection, TributaryError, WebhookRefused, verify_webhook
from tributary.v1 import events_pb2, node_pb2, payments_pb2 as pb, tokens_pb2, webhooks_pb2
from tributary.v1.requests_pb2 import PAY_WAIT_WAIT, PayRequest


def say(word: str) -> None:
    print(word, flush=True)
    assert sys.stdin.readline() == "ok\n"


def invoice(bob: Client, amount_msat: int) -> pb.Invoice:
    return bob.surely(bob.payments.CreateInvoice, pb.CreateInvoiceRequest(amount_msat=amount_msat))


def refused(method, request) -> TributaryError:
    try:
        method(request)
    except TributaryError as error:
        return error
    raise AssertionError("it was not refused")


def pays_once(alice: Client, bob: Client) -> pb.Payment:
    request = PayRequest(bolt11_invoice=invoice(bob, 5_000).bolt11, wait=PAY_WAIT_WAIT)
    first = alice.surely(alice.payments.Pay, request)
    assert first.state == pb.PAYMENT_STATE_SUCCEEDED, first
    assert request.idempotency_key, "the key is the caller's to keep"
    again = alice.payments.Pay(request)
    assert again.payment_id == first.payment_id, "one key, one payment"
    other = PayRequest(bolt11_invoice=request.bolt11_invoice, idempotency_key="other")
    error = refused(alice.payments.Pay, other)
    assert error.reason == "INVOICE_ALREADY_PAID", error
    assert error.money_may_have_moved and not error.is_outcome_unknown and not error.is_passing
    assert error.metadata["payment_id"] == first.payment_id.hex()
    assert "payment" in (error.remedy or "")
    return first


def tokens_narrow(alice: Client) -> None:
    restrictions = tokens_pb2.TokenRestrictions(role=tokens_pb2.TOKEN_ROLE_READ_ONLY)
    request = tokens_pb2.BakeTokenRequest(name="books", restrictions=restrictions)
    text = alice.surely(alice.tokens.BakeToken, request).text
    full = alice.connection
    limited = Connection(rpc=full.rpc, certificate=full.certificate, token=text)
    with Client(limited) as reader:
        assert reader.node.GetInfo(node_pb2.GetInfoRequest()).alias == "alice"
        error = refused(reader.payments.Pay, PayRequest(idempotency_key="x"))
        assert error.reason == "METHOD_DENIED", error


def follows_over_a_cut(alice: Client, bob: Client) -> None:
    seen: list[events_pb2.Event] = []
    started = threading.Event()

    def follow() -> None:
        starts = 0
        for event in alice.follow(after=0):
            seen.append(event)
            starts += event.node.kind == events_pb2.NODE_EVENT_KIND_STARTED
            if starts == 2:
                started.set()
            if started.is_set() and event.payment.state == pb.PAYMENT_STATE_SUCCEEDED:
                return

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    say("kill")
    # Asked while nobody is there, carried out once when the node is back.
    asked = pb.CreateInvoiceRequest(amount_msat=1, idempotency_key="while away")
    made: list[pb.Invoice] = []
    maker = threading.Thread(
        target=lambda: made.append(alice.surely(alice.payments.CreateInvoice, asked))
    )
    maker.start()
    say("start")
    maker.join(60)
    assert made and alice.payments.CreateInvoice(asked).payment_hash == made[0].payment_hash
    assert started.wait(60), "the events go on after the cut"
    for _ in range(100):
        request = PayRequest(bolt11_invoice=invoice(bob, 7_000).bolt11, wait=PAY_WAIT_WAIT)
        try:
            # The peer may still be on its way back.
            if alice.surely(alice.payments.Pay, request).state == pb.PAYMENT_STATE_SUCCEEDED:
                break
        except TributaryError as error:
            assert error.money_may_have_moved is False, error
        threading.Event().wait(0.2)
    follower.join(60)
    assert not follower.is_alive(), "the payment is told"
    sequences = [event.sequence for event in seen]
    assert sequences == list(range(1, len(seen) + 1)), "nothing twice, nothing left out"


def rest_answers(alice: Client, payment: pb.Payment) -> None:
    trust = ssl.create_default_context(cadata=alice.connection.certificate.decode())
    host, port = alice.connection.rest.rsplit(":", 1)
    headers = {"authorization": f"Bearer {alice.connection.token}"}
    connection = http.client.HTTPSConnection(host, int(port), context=trust, timeout=20)
    connection.request("GET", f"/v1/Payments/GetPayment?payment_id={payment.payment_id.hex()}", headers=headers)
    answer = connection.getresponse()
    found = json.load(answer)
    assert answer.status == 200 and found["state"] == "SUCCEEDED", found
    assert found["preimage"] == payment.preimage.hex()
    connection.request("POST", "/v1/Payments/Pay", body="{}", headers=headers)
    answer = connection.getresponse()
    error = json.load(answer)["error"]
    assert (answer.status, error["reason"]) == (400, "IDEMPOTENCY_KEY_MISSING"), error
    connection.request("GET", "/v1/Events/Subscribe?after_sequence=0", headers={**headers, "last-event-id": "2"})
    answer = connection.getresponse()
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.readline() == b"id: 3\n"
    assert json.loads(answer.readline().removeprefix(b"data: "))["sequence"] == 3
    connection.close()


def webhooks_are_verified(alice: Client) -> None:
    came: list[tuple[dict[str, str], bytes]] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((dict(self.headers), self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/hook"
    created = alice.surely(alice.webhooks.Create, webhooks_pb2.CreateWebhookRequest(url=url))
    test = webhooks_pb2.SendTestRequest(endpoint_id=created.webhook.endpoint_id)
    alice.surely(alice.webhooks.SendTest, test)
    headers, body = came[0]
    delivery = verify_webhook(created.secret, headers, body)
    assert delivery["type"].startswith("webhook."), delivery
    wrong_key = "whsec_" + "A" * 32
    late = {**headers, "webhook-timestamp": "1"}
    for secret, heads, text in [
        (created.secret, headers, body + b" "),
        (created.secret, late, body),
        (created.secret, {}, body),
        (wrong_key, headers, body),
    ]:
        try:
            verify_webhook(secret, heads, text)
        except WebhookRefused:
            continue
        raise AssertionError("it was not refused")
    server.shutdown()


def main() -> None:
    with Client.connect(sys.argv[1]) as alice, Client.connect(sys.argv[2]) as bob:
        payment = pays_once(alice, bob)
        print("paid once")
        tokens_narrow(alice)
        print("a token with limits")
        rest_answers(alice, payment)
        print("REST")
        webhooks_are_verified(alice)
        print("webhooks")
        follows_over_a_cut(alice, bob)
        say("done")


if __name__ == "__main__":
    main()
