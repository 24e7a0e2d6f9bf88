// What the tests share: addresses, clients, streams.

import assert from "node:assert/strict";
import { once } from "node:events";
import { type ChildProcess, spawn } from "node:child_process";
import { createServer, type AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type CallOptions,
  type ChannelCredentials,
  type ChannelOptions,
  type Client,
  type ClientReadableStream,
  type ServiceError,
  Metadata,
  credentials,
  status,
} from "@grpc/grpc-js";

import { GenerateRequest, GenerateServiceClient, type StreamGenerateResponse } from "./gen/puna/v1/generate.js";
import { RequestOptions } from "./gen/puna/v1/options.js";

/** Seconds that calls may take which must succeed. Machines that build other programs meanwhile are slow. */
export const patience = 120;

/** Returns an environment variable that the test harness sets. */
export function variable(name: string): string {
  const value = process.env[name];
  assert(value, `${name} is not set: run \`make test-clients CLIENT=node\``);
  return value;
}

interface Constructor<C extends Client> {
  new (address: string, credentials: ChannelCredentials, options?: ChannelOptions): C;
}

/** Returns a client without TLS, of the shared server unless an address is given. */
export function plain<C extends Client>(service: Constructor<C>, options?: ChannelOptions, address = variable("PUNA_ADDRESS")): C {
  return new service(address, credentials.createInsecure(), options);
}

/** Returns a time after which a call ends. */
export function within(seconds: number): CallOptions {
  return { deadline: Date.now() + seconds * 1000 };
}

type Unary<Q, A> = (
  request: Q,
  metadata: Metadata,
  options: CallOptions,
  callback: (error: ServiceError | null, answer: A) => void,
) => unknown;

/** Calls a unary method. */
export function call<Q, A>(client: Client, method: Unary<Q, A>, request: Q): Promise<A> {
  return new Promise((resolve, reject) => {
    method.call(client, request, new Metadata(), within(patience), (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

/** Returns the error of a promise, which must have the status. */
export async function failure(promise: Promise<unknown>, code: status): Promise<ServiceError> {
  const error = await promise.then(
    (value) => assert.fail(`no error, but ${JSON.stringify(value)}`),
    (reason: ServiceError) => reason,
  );
  assert.equal(status[error.code], status[code], error.message);
  return error;
}

/** Returns a request that has a model of the scripted backend do what the words say. */
export function prompt(model: string, words: string, options: Partial<RequestOptions> = {}): GenerateRequest {
  const text = { $case: "text" as const, value: words };
  return GenerateRequest.fromPartial({ model, prompt: text, raw: true, options });
}

/** Calls `visit` for each message of a stream of text, and returns the text. */
export async function read(
  stream: ClientReadableStream<StreamGenerateResponse>,
  visit: (part: StreamGenerateResponse) => void = () => {},
): Promise<string> {
  let text = "";
  for await (const part of stream as AsyncIterable<StreamGenerateResponse>) {
    visit(part);
    text += part.deltas.map((delta) => delta.text).join("");
  }
  return text;
}

/** Returns a whole answer. */
export function generate(client: GenerateServiceClient, request: GenerateRequest, metadata = new Metadata()): Promise<string> {
  return read(client.streamGenerate(request, metadata, within(patience)));
}

/** Waits until a condition holds. */
export async function eventually(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + patience * 1000; !(await holds()); await sleep(20)) {
    assert(Date.now() < end, `${what}: not within ${patience} s`);
  }
}

/** Returns an address of loopback on which nothing listens. */
export async function freeAddress(): Promise<string> {
  const listener = createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address() as AddressInfo;
  listener.close();
  return `127.0.0.1:${port}`;
}

/** Starts a server and returns when it is ready. */
export async function serve(address: string, settings: NodeJS.ProcessEnv = {}): Promise<ChildProcess> {
  const env = { ...process.env, ...settings };
  const server = spawn(variable("PUNA_SERVE"), [address], { env, stdio: ["ignore", "pipe", "inherit"] });
  await Promise.race([
    once(server.stdout, "data"),
    once(server, "exit").then(() => assert.fail("the server did not start")),
  ]);
  return server;
}

/** Ends a server and waits for its end. */
export async function end(server: ChildProcess): Promise<void> {
  if (server.exitCode === null) {
    server.kill("SIGTERM");
    await once(server, "exit");
  }
}
