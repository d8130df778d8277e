// Calls of a node, by gRPC or grpc-web.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type CallOptions,
  type Client as Stub,
  createClient,
  type Interceptor,
  type Transport,
} from "@connectrpc/connect";
import { createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { type Connection, readConnection } from "./connection.js";
import { OutcomeUnknown, TributaryError } from "./errors.js";
import { Batches } from "./gen/tributary/v1/batches_pb.js";
import { Channels } from "./gen/tributary/v1/channels_pb.js";
import { type Event, type EventKind, Events } from "./gen/tributary/v1/events_pb.js";
import { Node } from "./gen/tributary/v1/node_pb.js";
import { Payments } from "./gen/tributary/v1/payments_pb.js";
import { Payouts } from "./gen/tributary/v1/payouts_pb.js";
import { Tokens } from "./gen/tributary/v1/tokens_pb.js";
import { Tower } from "./gen/tributary/v1/tower_pb.js";
import { Wallet } from "./gen/tributary/v1/wallet_pb.js";
import { Webhooks } from "./gen/tributary/v1/webhooks_pb.js";

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;
const PATIENCE_MS = 60_000;

/** How a call is repeated. */
export interface Patience {
  /** How long at most, in milliseconds; 60,000 if absent. */
  patienceMs?: number;
  /** How long each try waits, in milliseconds. */
  timeoutMs?: number;
}

/** A node. Each service is a property with its methods. An error is a `TributaryError`. */
export class Client {
  readonly node: Stub<typeof Node>;
  readonly channels: Stub<typeof Channels>;
  readonly payments: Stub<typeof Payments>;
  readonly batches: Stub<typeof Batches>;
  readonly wallet: Stub<typeof Wallet>;
  readonly events: Stub<typeof Events>;
  readonly tower: Stub<typeof Tower>;
  readonly tokens: Stub<typeof Tokens>;
  readonly webhooks: Stub<typeof Webhooks>;
  readonly payouts: Stub<typeof Payouts>;

  constructor(transport: Transport) {
    this.node = createClient(Node, transport);
    this.channels = createClient(Channels, transport);
    this.payments = createClient(Payments, transport);
    this.batches = createClient(Batches, transport);
    this.wallet = createClient(Wallet, transport);
    this.events = createClient(Events, transport);
    this.tower = createClient(Tower, transport);
    this.tokens = createClient(Tokens, transport);
    this.webhooks = createClient(Webhooks, transport);
    this.payouts = createClient(Payouts, transport);
  }

  /** Connects to the node of a data directory or of a connection file, by gRPC. */
  static async connect(path: string): Promise<Client> {
    return Client.byGrpc(await readConnection(path));
  }

  static byGrpc(to: Connection): Client {
    return new Client(
      createGrpcTransport({
        baseUrl: `https://${to.rpc}`,
        nodeOptions: { ca: to.certificate },
        interceptors: [typedErrors, bearing(to.token)],
        pingIntervalMs: 20_000,
      }),
    );
  }

  /** By grpc-web, where only HTTP/1.1 comes through. */
  static byGrpcWeb(to: Connection): Client {
    if (to.rest === undefined) {
      throw new Error("the node serves no grpc-web; set rest.listen in its configuration");
    }
    return new Client(
      createGrpcWebTransport({
        baseUrl: `https://${to.rest}`,
        httpVersion: "1.1",
        nodeOptions: { ca: to.certificate },
        interceptors: [typedErrors, bearing(to.token)],
      }),
    );
  }

  /**
   * Makes a call that changes something once, however often it takes to hear its outcome:
   * `client.surely(client.payments.pay, { target: … })`.
   *
   * A request without an idempotency key gets a fresh one. After a lost answer, and while the node
   * is starting or busy, the call is repeated under the same key.
   *
   * @throws OutcomeUnknown, which has the key, if that does not help; any other TributaryError at
   *   once.
   */
  async surely<R extends object, A>(
    method: (request: R, options?: CallOptions) => Promise<A>,
    request: R & { idempotencyKey?: string },
    { patienceMs = PATIENCE_MS, timeoutMs }: Patience = {},
  ): Promise<A> {
    const key = request.idempotencyKey || randomUUID();
    const asked = { ...request, idempotencyKey: key };
    const deadline = Date.now() + patienceMs;
    let pause = FIRST_PAUSE_MS;
    let mayHaveBegun = false;
    for (;;) {
      try {
        return await method(asked, timeoutMs === undefined ? {} : { timeoutMs });
      } catch (thrown) {
        const error = TributaryError.of(thrown);
        mayHaveBegun ||= error.isOutcomeUnknown;
        const wait = Math.max(error.retryAfterMs ?? 0, pause * (0.5 + Math.random() / 2));
        if (error.isPassing && Date.now() + wait < deadline) {
          await sleep(wait);
          pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
          continue;
        }
        const isUnknown = error.isOutcomeUnknown || (error.isPassing && mayHaveBegun);
        throw isUnknown ? new OutcomeUnknown(error, key) : error;
      }
    }
  }

  /**
   * Yields events after a sequence, then new ones as they come, over lost connections.
   *
   * `after` is the sequence of the last event that is known, 0n for the whole log; without it only
   * what is yet to come. Store the sequence of each event with what it changed, and nothing is told
   * twice or left out.
   *
   * @throws TributaryError if failures go on for longer than `patienceMs`; one that a later try
   *   cannot mend, at once.
   */
  async *follow(
    after?: bigint,
    { kinds = [], patienceMs = PATIENCE_MS }: { kinds?: EventKind[]; patienceMs?: number } = {},
  ): AsyncGenerator<Event, never> {
    let last = after;
    let pause = FIRST_PAUSE_MS;
    let failingSince: number | undefined;
    for (;;) {
      try {
        // Without a place a cut would leave events out.
        last ??= (await this.node.getInfo({})).newestEventSequence;
        for await (const event of this.events.subscribe({ afterSequence: last, kinds })) {
          last = event.sequence;
          pause = FIRST_PAUSE_MS;
          failingSince = undefined;
          yield event;
        }
      } catch (thrown) {
        const error = TributaryError.of(thrown);
        failingSince ??= Date.now();
        if (!error.isPassing || Date.now() - failingSince > patienceMs) {
          throw error;
        }
      }
      await sleep(pause);
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    }
  }
}

/** Puts the token on every call. */
function bearing(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}

/** Has every error be a `TributaryError`. */
const typedErrors: Interceptor = (next) => async (request) => {
  try {
    const answer = await next(request);
    return answer.stream ? { ...answer, message: typed(answer.message) } : answer;
  } catch (error) {
    throw TributaryError.of(error);
  }
};

async function* typed<T>(messages: AsyncIterable<T>): AsyncIterable<T> {
  try {
    yield* messages;
  } catch (error) {
    throw TributaryError.of(error);
  }
}
