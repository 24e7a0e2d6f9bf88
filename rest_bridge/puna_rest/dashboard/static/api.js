/**
 * The client of the API: the Connect protocol with JSON, to the origin that served the page.
 *
 * A unary call is a POST with a JSON message. A stream consists of envelopes: a byte of flags, the length in four bytes,
 * and a JSON message. The last envelope has the flag 2 and holds the error, if there is one. Messages leave out fields
 * that have their default, and write 64-bit integers as strings.
 */

const END_OF_STREAM = 2;
const HEAD = 5;
const KEY = "puna.key";

/** An error of the API, or of the way to it. */
export class ApiError extends Error {
  /**
   * @param {string} code the Connect code, such as "permission_denied"
   * @param {string} reason the reason of the error, such as "MODEL_NOT_FOUND"; empty: none
   * @param {string} message the text for people
   */
  constructor(code, reason, message) {
    super(message);
    this.code = code;
    this.reason = reason;
  }
}

/** The API as seen with the user's key. It dispatches "unauthenticated" when the server wants another key. */
export class Api extends EventTarget {
  #base = new URL("../", document.baseURI);

  /** The key; empty: none. It lives as long as the tab. */
  get key() {
    return sessionStorage.getItem(KEY) ?? "";
  }

  set key(value) {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  }

  /** Call a unary method, such as "puna.v1.ModelsService/ListModels". Return the message. Throws ApiError. */
  async call(method, body = {}, { signal } = {}) {
    const response = await this.#post(method, "application/json", JSON.stringify(body), signal);
    return guarded(signal, () => response.json());
  }

  /** Call a unary method that answers in pages. Return the elements of all pages. `name` is the list's field. */
  async list(method, body, name, { signal } = {}) {
    const found = [];
    let pageToken = "";
    do {
      const page = await this.call(method, { pageSize: 1000, ...body, pageToken }, { signal });
      found.push(...(page[name] ?? []));
      pageToken = page.nextPageToken ?? "";
    } while (pageToken);
    return found;
  }

  /** Call a method that streams. Yield the messages. Throws ApiError. Leaving the loop ends the call. */
  async *stream(method, body = {}, { signal } = {}) {
    const response = await this.#post(method, "application/connect+json", envelope(JSON.stringify(body)), signal);
    const reader = response.body.getReader();
    try {
      for await (const { flags, text } of envelopes(reader, signal)) {
        const message = JSON.parse(text);
        if (!(flags & END_OF_STREAM)) yield message;
        else if (message.error) throw this.#failure(message.error);
        else return;
      }
      throw new ApiError("unavailable", "", "The server ended the answer before its end.");
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  async #post(method, type, body, signal) {
    const headers = { "Content-Type": type, "Connect-Protocol-Version": "1" };
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    const how = { method: "POST", headers, body, signal, credentials: "same-origin", redirect: "error" };
    const response = await guarded(signal, () => fetch(new URL(method, this.#base), how));
    if (response.ok) return response;
    const text = await guarded(signal, () => response.text());
    throw this.#failure(parsed(text) ?? { code: code(response.status), message: text || response.statusText });
  }

  #failure({ code: name, error, message, details }) {
    // The bridge answers some bad requests before it knows that they speak Connect.
    const found = new ApiError(name ?? "unknown", reasonOf(details), message || error || name || "unknown error");
    if (found.code === "unauthenticated") this.dispatchEvent(new Event("unauthenticated"));
    return found;
  }
}

/** Return what an error means, for people. */
export function explain(error) {
  switch (error.code) {
    case "unimplemented":
      return `This server does not offer this: ${error.message}`;
    case "permission_denied":
      return `Not allowed: ${error.message}`;
    case "unauthenticated":
      return `${error.message}. The button “Key” takes one.`;
    default:
      return error.message;
  }
}

/** Await something of the network. A failure becomes an ApiError, unless the page has aborted it. */
async function guarded(signal, work) {
  try {
    return await work();
  } catch (error) {
    if (signal?.aborted || error.name === "AbortError") throw error;
    throw new ApiError("unavailable", "", "The server does not answer.");
  }
}

function envelope(text) {
  const data = new TextEncoder().encode(text);
  const framed = new Uint8Array(HEAD + data.length);
  new DataView(framed.buffer).setUint32(1, data.length);
  framed.set(data, HEAD);
  return framed;
}

async function* envelopes(reader, signal) {
  let rest = new Uint8Array();
  for (;;) {
    while (rest.length >= HEAD) {
      const size = new DataView(rest.buffer, rest.byteOffset).getUint32(1);
      if (rest.length < HEAD + size) break;
      yield { flags: rest[0], text: new TextDecoder().decode(rest.subarray(HEAD, HEAD + size)) };
      rest = rest.subarray(HEAD + size);
    }
    const { done, value } = await guarded(signal, () => reader.read());
    if (done) return;
    const joined = new Uint8Array(rest.length + value.length);
    joined.set(rest);
    joined.set(value, rest.length);
    rest = joined;
  }
}

function parsed(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

function code(status) {
  const codes = { 401: "unauthenticated", 403: "permission_denied", 404: "not_found", 429: "resource_exhausted" };
  return codes[status] ?? (status >= 500 ? "unavailable" : "invalid_argument");
}

/** Return the reason of a google.rpc.ErrorInfo, which is its first field: a tag, a length and the text. */
function reasonOf(details = []) {
  const info = details.find((each) => each.type === "google.rpc.ErrorInfo");
  if (!info) return "";
  const bytes = atob(info.value);
  return bytes.charCodeAt(0) === 0x0a ? bytes.slice(2, 2 + bytes.charCodeAt(1)) : "";
}
