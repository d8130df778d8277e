// Verifies what a node sends to a webhook endpoint.
//
// Source: Standard Webhooks 1.0.0, "Signature scheme", symmetric.

import { createHmac, timingSafeEqual } from "node:crypto";

const PREFIX = "whsec_";

/** A delivery that is not the node's, or too old. Answer it with 400. */
export class WebhookRefused extends Error {
  override name = "WebhookRefused";
}

/** What a node tells. */
export interface Delivery {
  /** Such as `payment.succeeded`. */
  type: string;
  /** When it happened, ISO 8601 in UTC. */
  timestamp: string;
  /** The event, as REST writes it. */
  data: Record<string, unknown>;
}

/**
 * Returns a delivery once it is surely the node's.
 *
 * `secret` is what `Webhooks.Create` returned, `whsec_…`; `body` the very bytes that came. A
 * delivery comes again after a failure, under the same `webhook-id`: keep the ids that were dealt
 * with. `toleranceSeconds` is 300 if absent.
 *
 * @throws WebhookRefused
 */
export function verifyWebhook(
  secret: string,
  headers: Record<string, string | string[] | undefined>,
  body: Uint8Array | string,
  { toleranceSeconds = 300, nowMs = Date.now() } = {},
): Delivery {
  const header = (name: string): string => {
    const found = Object.entries(headers).find(([key]) => key.toLowerCase() === name)?.[1];
    if (typeof found !== "string") {
      throw new WebhookRefused(`the header ${name} must come once`);
    }
    return found;
  };
  const id = header("webhook-id");
  const sentAt = header("webhook-timestamp");
  const signatures = header("webhook-signature").split(" ");
  if (!/^[0-9]{1,15}$/.test(sentAt)) {
    throw new WebhookRefused("webhook-timestamp is no number");
  }
  const age = nowMs / 1000 - Number(sentAt);
  if (Math.abs(age) > toleranceSeconds) {
    throw new WebhookRefused(`it was signed ${age.toFixed(0)} s ago`);
  }
  const key = Buffer.from(secret.startsWith(PREFIX) ? secret.slice(PREFIX.length) : secret, "base64");
  const tag = createHmac("sha256", key).update(`${id}.${sentAt}.`).update(body).digest("base64");
  const expected = Buffer.from(`v1,${tag}`);
  // While a secret is replaced both sign.
  const matching = signatures.some((signature) => {
    const given = Buffer.from(signature);
    return given.length === expected.length && timingSafeEqual(given, expected);
  });
  if (!matching) {
    throw new WebhookRefused("no signature is by this secret");
  }
  return JSON.parse(typeof body === "string" ? body : Buffer.from(body).toString("utf8")) as Delivery;
}
