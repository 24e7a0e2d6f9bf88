import { readFileSync } from "node:fs";
import { type ChannelCredentials, type Client, Metadata, credentials } from "@grpc/grpc-js";

import { variable } from "./client.js";

/** The address by a name, since Node.js sends no IP address as the server's name in TLS. */
export const secureAddress = variable("PUNA_SECURE_ADDRESS").replace("127.0.0.1", "localhost");

/** Returns a client of the server with TLS and keys. */
export function secure<C extends Client>(service: { new (address: string, credentials: ChannelCredentials): C }, key?: string): C {
  let channel = credentials.createSsl(readFileSync(variable("PUNA_CA")));
  if (key) {
    const bearer = credentials.createFromMetadataGenerator((_, done) => {
      const metadata = new Metadata();
      metadata.set("authorization", `Bearer ${key}`);
      done(null, metadata);
    });
    channel = credentials.combineChannelCredentials(channel, bearer);
  }
  return new service(secureAddress, channel);
}
