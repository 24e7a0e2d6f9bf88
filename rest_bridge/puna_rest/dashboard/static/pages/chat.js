/**
 * The chat page. The conversation is in the page's memory alone, and leaving the page ends it.
 *
 * An answer that was stopped stays in the conversation as far as it came. One that failed does not, nor does the message
 * before it: many templates refuse two messages of the user in a row. "Try again" sends that message once more.
 */

import { explain } from "../api.js";
import { h } from "../dom.js";
import { ChatAnswer } from "./chat_answer.js";
import { ImageTray } from "./chat_images.js";
import { chatRequest } from "./chat_request.js";
import { ChatSettings } from "./chat_settings.js";

export const title = "Chat";

/** Show the page in `root` until `signal` aborts. */
export function mount(root, { api, signal, announce }) {
  const page = new ChatPage(api, signal, announce);
  root.append(page.node);
}

class ChatPage {
  node;
  #api;
  #announce;
  #settings;
  #images = new ImageTray((text) => this.#say(text));
  #messages = [];
  /** AbortController of the answer that is being written; null: there is none. */
  #running = null;
  #log = h("div", { class: "conversation", role: "log", "aria-live": "off", "aria-label": "Messages", tabIndex: 0 });
  #status = h("p", { class: "status muted" });
  #text;
  #send = h("button", { type: "submit", class: "button primary" }, "Send");
  #stop = h("button", { type: "button", class: "button", ariaDisabled: "true", onclick: () => this.#running?.abort() }, "Stop");

  constructor(api, signal, announce) {
    this.#api = api;
    this.#announce = announce;
    this.#settings = new ChatSettings(api, signal, (capabilities) => {
      this.#images.usable = capabilities.includes("vision");
    });
    this.#text = h("textarea", { rows: 3, "aria-label": "Message", placeholder: "Message",
      onkeydown: (event) => this.#key(event), onpaste: (event) => this.#take(event, event.clipboardData.files) });
    this.node = this.#layout();
    signal.addEventListener("abort", () => this.#running?.abort());
    this.#settings.models.then(
      (models) => models.size || this.#say("No model of this server can chat. Pull one on the page Models."),
      (error) => signal.aborted || this.#say(error.message),
    );
  }

  #layout() {
    const begin = (event) => {
      event.preventDefault();
      this.#ask();
    };
    const compose = h("form", { class: "compose", onsubmit: begin }, this.#text, this.#images.node,
      h("div", { class: "toolbar" }, this.#send, this.#stop, this.#images.button,
        h("button", { type: "button", class: "button", onclick: () => this.#clear() }, "New conversation")),
      h("small", { class: "muted" }, "Enter sends, Shift+Enter begins a line, Escape stops the answer."));
    return h("div", { class: "chat", onkeydown: (event) => event.key === "Escape" && this.#running?.abort(),
      ondragover: (event) => event.preventDefault(), ondrop: (event) => this.#take(event, event.dataTransfer.files) },
    h("section", { class: "chat-main panel", "aria-label": "Conversation" }, h("h2", {}, "Conversation"), this.#log, this.#status, compose), this.#settings.node);
  }

  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#ask();
  }

  #take(event, files) {
    if (!files.length) return;
    event.preventDefault();
    this.#images.add(files);
  }

  #ask() {
    const content = this.#text.value;
    if (this.#running || (!content.trim() && this.#images.isEmpty)) return;
    const message = { role: "user", content, media: this.#images.media };
    const shown = h("article", { class: "message user" }, h("h3", {}, "You"), h("div", { class: "plain" }, content));
    if (!this.#answer([...this.#messages, message], shown)) return;
    shown.append(h("div", { class: "thumbnails" }, this.#images.take()));
    this.#text.value = "";
  }

  /**
   * Begin an answer to `messages`.
   * @param {Node} [shown] The last message, to be shown above the answer.
   * @returns {boolean} false: a field of the settings has a mistake, which the status names.
   */
  #answer(messages, shown) {
    if (this.#running) return false;
    const settings = this.#settings.values;
    let request;
    try {
      request = chatRequest(settings, messages);
    } catch (error) {
      this.#say(error.message);
      return false;
    }
    const answer = new ChatAnswer(settings.model, Boolean(settings.format));
    this.#log.append(...(shown ? [shown] : []), answer.node);
    // The button that began it may be about to vanish.
    this.#text.focus();
    this.#stream(request, messages, answer);
    return true;
  }

  async #stream(request, messages, answer) {
    const running = new AbortController();
    const before = this.#messages;
    this.#busy(running);
    this.#say("The model answers…");
    this.#log.scrollTop = this.#log.scrollHeight;
    try {
      const options = { signal: running.signal };
      for await (const part of this.#api.stream("puna.v1.ChatService/StreamChat", request, options)) {
        const follows = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < 40;
        this.#status.textContent = answer.add(part) || "The model answers…";
        if (follows) this.#log.scrollTop = this.#log.scrollHeight;
      }
      this.#say(answer.message.toolCalls.length ? "The model calls a tool. Type the result." : "The answer is complete.");
    } catch (error) {
      if (running.signal.aborted) answer.stop();
      else answer.fail(explain(error), () => this.#isAt(before) && this.#answer(messages));
      this.#say(running.signal.aborted ? "The answer was stopped." : `The answer failed. ${explain(error)}`);
    }
    if (this.#running !== running) return; // a new conversation has begun
    const after = [...messages, answer.message];
    answer.end((results) => this.#isAt(after) && this.#answer([...after, ...results]));
    if (answer.isUsable) this.#messages = after;
    this.#busy(null);
    this.#log.scrollTop = this.#log.scrollHeight;
  }

  /** Whether the conversation still ends where an answer has left it. Says so if it does not. */
  #isAt(messages) {
    const stays = this.#messages === messages;
    if (!stays) this.#say("The conversation has gone on since then.");
    return stays;
  }

  #busy(running) {
    this.#running = running;
    // A button that is disabled would lose the focus.
    this.#send.ariaDisabled = running ? "true" : null;
    this.#stop.ariaDisabled = running ? null : "true";
    this.#log.setAttribute("aria-busy", String(Boolean(running)));
  }

  #clear() {
    this.#running?.abort();
    this.#busy(null);
    this.#messages = [];
    this.#log.replaceChildren();
    this.#say("");
    this.#text.focus();
  }

  #say(text) {
    this.#status.textContent = text;
    if (text) this.#announce(text);
  }
}
