/**
 * The log page: the last lines of the server's log, and new ones as they are written. `#/log/ID` shows those of a request.
 *
 * A stream that breaks is begun again, and the lines are then those that the server still has.
 */

import { explain } from "../api.js";
import { choice, field, h, panel, setText } from "../dom.js";
import { sleep } from "../poll.js";
import { clock } from "../text.js";
import { enumName } from "./values.js";

export const title = "Log";

const LEVELS = ["debug", "info", "warning", "error"];
const MOST = 2000;
const RETRY = 2000;

/** Show the page. */
export function mount(root, { api, signal, params }) {
  const page = new LogPage(api, signal, params[0] ?? "");
  root.append(page.problem, page.node);
}

class LogPage {
  problem = h("p", { class: "error", role: "alert" });
  node;
  #api;
  #signal;
  #lines = [];
  /** Lines that have come and are not shown yet. */
  #held = [];
  #dropped = 0;
  #paused = false;
  #frame = 0;
  #stream = new AbortController();
  #status = h("p", { class: "muted" });
  #list = h("div", { class: "log-lines", role: "log", "aria-live": "off", "aria-label": "Log lines", tabIndex: 0 });
  #pause = h("button", { type: "button", class: "button", "aria-pressed": "false", onclick: () => this.#hold() }, "Pause");
  #level;
  #request;
  #search;

  constructor(api, signal, request) {
    this.#api = api;
    this.#signal = signal;
    this.#level = choice(LEVELS.map((each) => [`LOG_LEVEL_${each.toUpperCase()}`, each]), { onchange: () => this.#restart() });
    this.#level.value = "LOG_LEVEL_INFO";
    this.#request = h("input", { value: request, placeholder: "all", autocomplete: "off", onchange: () => this.#restart() });
    this.#search = h("input", { type: "search", oninput: () => this.#filter() });
    const clear = h("button", { type: "button", class: "button", onclick: () => this.#clear() }, "Clear");
    const aloud = h("input", { type: "checkbox", onchange: () =>
      this.#list.setAttribute("aria-live", aloud.checked ? "polite" : "off") });
    const facts = h("input", { type: "checkbox", onchange: () => this.#list.classList.toggle("with-facts", facts.checked) });
    const toolbar = h("div", { class: "toolbar" }, field("Least level", this.#level), field("Request", this.#request),
      field("Search", this.#search), this.#pause, clear, h("label", { class: "compact" }, facts, "Facts"),
      h("label", { class: "compact" }, aloud, "Read new lines aloud"));
    this.node = panel("Log", toolbar, this.#status, this.#list);
    signal.addEventListener("abort", () => {
      this.#stream.abort();
      cancelAnimationFrame(this.#frame);
    });
    this.#restart();
  }

  #restart() {
    this.#stream.abort();
    this.#stream = new AbortController();
    this.#follow(this.#stream.signal);
  }

  async #follow(signal) {
    const request = { minLevel: this.#level.value, requestId: this.#request.value.trim(), tailLines: MOST, follow: true };
    this.#clear();
    while (!signal.aborted) {
      let isFirst = true;
      try {
        for await (const part of this.#api.stream("puna.v1.DiagnosticsService/StreamLogs", request, { signal })) {
          // Until then the last lines of a server that has ended stay.
          if (isFirst) this.#clear();
          isFirst = false;
          setText(this.problem, "");
          this.node.hidden = false;
          this.#take(part);
        }
      } catch (error) {
        if (signal.aborted) return;
        setText(this.problem, why(error));
        this.node.hidden = ["unimplemented", "permission_denied", "unauthenticated"].includes(error.code);
      }
      await sleep(RETRY, signal);
    }
  }

  #take({ lines = [], droppedCount = 0 }) {
    this.#dropped += Number(droppedCount);
    this.#held.push(...lines.map(entry));
    this.#dropped += this.#held.splice(0, Math.max(0, this.#held.length - MOST)).length;
    if (this.#paused) this.#count();
    else this.#frame ||= requestAnimationFrame(() => this.#show());
  }

  #show() {
    this.#frame = 0;
    const list = this.#list;
    const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    const fresh = this.#held.splice(0);
    this.#lines.push(...fresh);
    list.append(...fresh.filter((each) => this.#matches(each)).map((each) => each.node));
    const old = this.#lines.splice(0, Math.max(0, this.#lines.length - MOST));
    this.#dropped += old.length;
    for (const each of old) each.node.remove();
    this.#count();
    if (follows) list.scrollTop = list.scrollHeight;
  }

  #matches(line) {
    return line.text.includes(this.#search.value.trim().toLowerCase());
  }

  #filter() {
    this.#list.replaceChildren(...this.#lines.filter((each) => this.#matches(each)).map((each) => each.node));
    this.#count();
  }

  #hold() {
    this.#paused = !this.#paused;
    this.#pause.setAttribute("aria-pressed", String(this.#paused));
    if (!this.#paused) this.#show();
  }

  #clear() {
    this.#lines = [];
    this.#held = [];
    this.#dropped = 0;
    this.#list.replaceChildren();
    this.#count();
  }

  #count() {
    const parts = [`${this.#list.childElementCount} of ${this.#lines.length} lines`];
    if (this.#held.length) parts.push(`${this.#held.length} new ones wait`);
    if (this.#dropped) parts.push(`${this.#dropped} older ones are no longer here`);
    setText(this.#status, parts.join(" · "));
  }
}

function why(error) {
  switch (error.code) {
    case "unimplemented":
      return `This server does not show its log here: ${error.message}`;
    case "permission_denied":
    case "unauthenticated":
      return explain(error);
    default:
      return `The log cannot be followed. ${explain(error)}`;
  }
}

/** Return a line's element, and its text for the search. */
function entry(line) {
  const level = enumName(line.level, "LOG_LEVEL_");
  const { logger = "", requestId = "", message = "", factsJson = "", traceback = "" } = line;
  const node = h("div", { class: `log-line log-${level}` },
    h("time", { dateTime: line.time ?? "" }, clock(line.time)), h("span", { class: "log-level" }, level),
    h("span", { class: "log-origin" }, [logger, requestId].filter(Boolean).join(" ")),
    h("span", { class: "log-text" }, message, factsJson && h("span", { class: "log-facts muted" }, ` ${factsJson}`)),
    traceback && h("pre", {}, traceback));
  return { node, text: [level, logger, requestId, message, factsJson, traceback].join(" ").toLowerCase() };
}
