// A client of Tributary nodes. `client` calls, `errors` says why a call was refused, `webhooks`
// verifies what a node sends. Messages are in `tributary-client/v1/*`.

export { Client, type Patience } from "./client.js";
export { type Connection, readConnection } from "./connection.js";
export { OutcomeUnknown, TributaryError } from "./errors.js";
export { type Delivery, verifyWebhook, WebhookRefused } from "./webhooks.js";
