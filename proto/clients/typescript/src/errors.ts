// Why a call was refused.

import { BinaryReader } from "@bufbuild/protobuf/wire";
import { Code, ConnectError } from "@connectrpc/connect";

const DOMAIN = "tributary";
const ERROR_INFO = "google.rpc.ErrorInfo";

const LOST = new Set([Code.Unavailable, Code.DeadlineExceeded, Code.Canceled, Code.Unknown, Code.Aborted]);
const UNSURE = new Set([Code.DeadlineExceeded, Code.Internal]);
const PASSING = new Set([
  "STARTING",
  "STOPPING",
  "RATE_LIMITED",
  "OVERLOADED",
  "DEADLINE_PASSED",
  "TOO_MANY_IN_FLIGHT",
]);

/** A call that was refused, or did not come to an answer. `code` is that of gRPC. */
export class TributaryError extends ConnectError {
  /** What an error of this class has, and no other. */
  readonly #isOurs = true;

  /** `ConnectError` judges by looks, and would take any of its own for one of these. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && #isOurs in value;
  }

  private constructor(
    from: ConnectError,
    /**
     * Why, for programs, such as `INVOICE_EXPIRED`; it keeps its name for good. Undefined if the
     * node said nothing, as when the connection broke.
     */
    readonly reason: string | undefined,
    /** The numbers that the message names, by key. */
    readonly numbers: Readonly<Record<string, string>>,
  ) {
    super(from.rawMessage, from.code, from.metadata, undefined, from.cause);
    this.details = from.details;
  }

  /** Reads what the node said with an error. */
  static of(error: unknown): TributaryError {
    if (error instanceof TributaryError) {
      return error;
    }
    const from = ConnectError.from(error);
    for (const detail of from.details) {
      if ("type" in detail && detail.type === ERROR_INFO && "value" in detail) {
        const info = errorInfo(detail.value as Uint8Array);
        if (info.domain === DOMAIN) {
          return new TributaryError(from, info.reason, info.metadata);
        }
      }
    }
    return new TributaryError(from, undefined, {});
  }

  /** What to do. */
  get remedy(): string | undefined {
    return this.numbers["remedy"];
  }

  /**
   * Whether it may; undefined if the node did not say. Then only the same call with the same
   * idempotency key tells what became of it.
   */
  get moneyMayHaveMoved(): boolean | undefined {
    const said = this.numbers["money_may_have_moved"];
    return said === undefined ? undefined : said === "true";
  }

  /** Milliseconds after which the call may be repeated, if the node says. */
  get retryAfterMs(): number | undefined {
    const said = this.numbers["retry_after_ms"];
    return said === undefined ? undefined : Number(said);
  }

  /**
   * Whether this very call may have been carried out although there is no answer to it. A refusal
   * for good, such as `INVOICE_ALREADY_PAID`, is an answer, also where money has moved by another
   * call.
   */
  get isOutcomeUnknown(): boolean {
    return this.reason === undefined
      ? LOST.has(this.code)
      : UNSURE.has(this.code) && this.moneyMayHaveMoved !== false;
  }

  /** Whether the same call, with its key, may do better a little later. */
  get isPassing(): boolean {
    return this.reason === undefined ? LOST.has(this.code) : PASSING.has(this.reason);
  }
}

/**
 * Repeating a call did not help, and nobody can tell whether it was carried out.
 *
 * The same call with its `key`, at any time in the next 30 days, gives the outcome and does
 * nothing twice.
 */
export class OutcomeUnknown extends Error {
  override name = "OutcomeUnknown";

  constructor(
    /** What the last try said. */
    readonly last: TributaryError,
    /** The call's idempotency key. */
    readonly key: string,
  ) {
    super(`the outcome of ${key} is unknown: ${last.message}`, { cause: last });
  }
}

/** Reads google.rpc.ErrorInfo: `reason` 1, `domain` 2, `metadata` 3. */
function errorInfo(bytes: Uint8Array): {
  reason: string;
  domain: string;
  metadata: Record<string, string>;
} {
  const info = { reason: "", domain: "", metadata: {} as Record<string, string> };
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    if (number === 1) {
      info.reason = reader.string();
    } else if (number === 2) {
      info.domain = reader.string();
    } else if (number === 3) {
      const entry = new BinaryReader(reader.bytes());
      let key = "";
      let value = "";
      while (entry.pos < entry.len) {
        const [part, partType] = entry.tag();
        if (part === 1) {
          key = entry.string();
        } else if (part === 2) {
          value = entry.string();
        } else {
          entry.skip(partType);
        }
      }
      info.metadata[key] = value;
    } else {
      reader.skip(type);
    }
  }
  return info;
}
