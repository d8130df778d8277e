// Where a node is, and what opens it.

import { readFile, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";

const FILE = "rpc.json";

/** An address, the certificate that is trusted there, and a token. */
export interface Connection {
  /** `host:port` of gRPC. */
  rpc: string;
  /** `host:port` of REST and grpc-web, if the node serves them. */
  rest?: string;
  /** The node's certificate, PEM. */
  certificate: string;
  /** The administrator's token, or one with limits. */
  token: string;
}

/** Reads the file that a running node keeps in its data directory; takes either. */
export async function readConnection(path: string): Promise<Connection> {
  let file = path.startsWith("~/") ? join(homedir(), path.slice(2)) : path;
  if ((await stat(file)).isDirectory()) {
    file = join(file, FILE);
  }
  const found = JSON.parse(await readFile(file, "utf8")) as Record<string, string | undefined>;
  const text = async (key: string): Promise<string> => {
    const named = found[key];
    if (named === undefined) {
      throw new Error(`${file} has no ${key}; restart the node, which writes it anew`);
    }
    // Paths in it are absolute, or relative to it.
    return readFile(resolve(dirname(file), named), "utf8");
  };
  if (found["rpc"] === undefined) {
    throw new Error(`${file} has no rpc; restart the node, which writes it anew`);
  }
  return {
    rpc: found["rpc"],
    ...(found["rest"] ? { rest: found["rest"] } : {}),
    certificate: await text("tls_cert"),
    token: (await text("token_file")).trim(),
  };
}
