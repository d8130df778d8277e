// What the TypeScript client does from end to end. `cargo test -p node --test clients` runs it.
//
//   node e2e.mjs ALICE BOB
//
// Both are data directories of running nodes; alice has a channel to bob. It prints `kill` and
// `start` when alice is to be killed and started again, and waits for a line each time.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { Client, readConnection, TributaryError, verifyWebhook, WebhookRefused } from "../dist/index.js";
import { NodeEventKind } from "../dist/gen/tributary/v1/events_pb.js";
import { PaymentState } from "../dist/gen/tributary/v1/payments_pb.js";
import { PayWait } from "../dist/gen/tributary/v1/requests_pb.js";
import { TokenRole } from "../dist/gen/tributary/v1/tokens_pb.js";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function say(word) {
  console.log(word);
  assert.equal((await lines.next()).value, "ok");
}

const hex = (bytes) => Buffer.from(bytes).toString("hex");

async function invoice(bob, amountMsat) {
  return bob.surely(bob.payments.createInvoice, { amountMsat });
}

function target(invoice) {
  return { target: { case: "bolt11Invoice", value: invoice.bolt11 }, wait: PayWait.WAIT };
}

async function refused(promise) {
  const error = await promise.then(
    () => assert.fail("it was not refused"),
    (error) => error,
  );
  assert(error instanceof TributaryError, String(error));
  return error;
}

async function paysOnce(alice, bob) {
  const asked = target(await invoice(bob, 5_000n));
  const idempotencyKey = "the key of one payment";
  const first = await alice.surely(alice.payments.pay, { ...asked, idempotencyKey });
  assert.equal(first.state, PaymentState.SUCCEEDED);
  const again = await alice.payments.pay({ ...asked, idempotencyKey });
  assert.equal(hex(again.paymentId), hex(first.paymentId), "one key, one payment");
  const error = await refused(alice.payments.pay({ ...asked, idempotencyKey: "other" }));
  assert.equal(error.reason, "INVOICE_ALREADY_PAID");
  assert.equal(error.moneyMayHaveMoved, true, "by the first payment");
  assert.equal(error.isOutcomeUnknown || error.isPassing, false);
  assert.equal(error.numbers["payment_id"], hex(first.paymentId));
  assert(error.remedy?.includes("payment"));
}

async function tokensNarrow(alice, connection) {
  const restrictions = { role: TokenRole.READ_ONLY };
  const baked = await alice.surely(alice.tokens.bakeToken, { name: "books", restrictions });
  const reader = Client.byGrpc({ ...connection, token: baked.text });
  assert.equal((await reader.node.getInfo({})).alias, "alice");
  const error = await refused(reader.payments.pay({ idempotencyKey: "x" }));
  assert.equal(error.reason, "METHOD_DENIED");
}

/** The same over HTTP/1.1, and a stream with it. */
async function speaksGrpcWeb(connection, bob) {
  const alice = Client.byGrpcWeb(connection);
  assert.equal((await alice.node.getInfo({})).alias, "alice");
  const paid = await alice.surely(alice.payments.pay, target(await invoice(bob, 6_000n)));
  assert.equal(paid.state, PaymentState.SUCCEEDED);
  const error = await refused(alice.payments.pay({}));
  assert.equal(error.reason, "IDEMPOTENCY_KEY_MISSING");
  const seen = [];
  for await (const event of alice.events.subscribe({ afterSequence: 0n })) {
    seen.push(event.sequence);
    if (seen.length === 3) {
      break;
    }
  }
  assert.deepEqual(seen, [1n, 2n, 3n]);
  const states = [];
  for await (const payment of alice.payments.watchPayment({ paymentId: paid.paymentId })) {
    states.push(payment.state);
  }
  assert.deepEqual(states, [PaymentState.SUCCEEDED], "the stream has an end");
}

async function webhooksAreVerified(alice) {
  const came = [];
  const server = createServer((request, response) => {
    const pieces = [];
    request.on("data", (piece) => pieces.push(piece));
    request.on("end", () => {
      came.push({ headers: request.headers, body: Buffer.concat(pieces) });
      response.writeHead(204).end();
    });
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const url = `http://127.0.0.1:${server.address().port}/hook`;
  const { secret, webhook } = await alice.surely(alice.webhooks.create, { url });
  await alice.surely(alice.webhooks.sendTest, { endpointId: webhook.endpointId });
  const [{ headers, body }] = came;
  assert(verifyWebhook(secret, headers, body).type.startsWith("webhook."));
  for (const [key, heads, text] of [
    [secret, headers, Buffer.concat([body, Buffer.from(" ")])],
    [secret, { ...headers, "webhook-timestamp": "1" }, body],
    [secret, {}, body],
    [`whsec_${"A".repeat(32)}`, headers, body],
  ]) {
    assert.throws(() => verifyWebhook(key, heads, text), WebhookRefused);
  }
  server.closeAllConnections();
  server.close();
  await alice.surely(alice.webhooks.delete, { endpointId: webhook.endpointId });
  // The vector of the scheme's own libraries.
  const published = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
  };
  const known = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
  verifyWebhook(known, published, '{"test": 2432232314}', { nowMs: 1_614_265_330_000 });
}

async function followsOverACut(alice, bob) {
  const seen = [];
  let starts = 0;
  let started;
  const isBack = new Promise((resolve) => (started = resolve));
  const following = (async () => {
    for await (const event of alice.follow(0n)) {
      seen.push(event.sequence);
      const { case: what, value } = event.kind;
      if (what === "node" && value.kind === NodeEventKind.STARTED && ++starts === 2) {
        started();
      }
      if (starts === 2 && what === "payment" && value.state === PaymentState.SUCCEEDED) {
        return;
      }
    }
  })();
  await say("kill");
  // Asked while nobody is there, carried out once when the node is back.
  const asked = { amountMsat: 1n, idempotencyKey: "while away" };
  const making = alice.surely(alice.payments.createInvoice, asked);
  await sleep(300);
  await say("start");
  const made = await making;
  const again = await alice.payments.createInvoice(asked);
  assert.equal(hex(again.paymentHash), hex(made.paymentHash));
  await isBack;
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const asked = target(await invoice(bob, 7_000n));
    try {
      // The peer may still be on its way back.
      if ((await alice.surely(alice.payments.pay, asked)).state === PaymentState.SUCCEEDED) {
        break;
      }
    } catch (error) {
      assert.equal(error.moneyMayHaveMoved, false, String(error));
    }
    await sleep(200);
  }
  await following;
  const expected = seen.map((_, index) => BigInt(index + 1));
  assert.deepEqual(seen, expected, "nothing twice, nothing left out");
}

const connection = await readConnection(process.argv[2]);
const alice = Client.byGrpc(connection);
const bob = await Client.connect(process.argv[3]);
await paysOnce(alice, bob);
console.log("paid once");
await tokensNarrow(alice, connection);
console.log("a token with limits");
await speaksGrpcWeb(connection, bob);
console.log("grpc-web");
await webhooksAreVerified(alice);
console.log("webhooks");
await followsOverACut(alice, bob);
await say("done");
process.exit(0);
