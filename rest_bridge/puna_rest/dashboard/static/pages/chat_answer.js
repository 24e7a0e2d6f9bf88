/** An answer in the conversation: thinking, text, tool calls with fields for their results, counts, errors. */

import { field, h } from "../dom.js";
import { modelName } from "../text.js";
import { finishText, progressText } from "./chat_request.js";
import { codeBlock } from "./code_block.js";
import { indented } from "./json_text.js";
import { MarkdownView } from "./markdown.js";

export class ChatAnswer {
  /** Message of the assistant so far, in the JSON form of protobuf. */
  message = { role: "assistant", content: "", thinking: "", toolCalls: [] };
  node;
  #parts;
  #view;
  #structured;
  #start = performance.now();
  #firstSeconds;
  #failed = false;
  #frame = 0;

  /** @param {boolean} structured Whether the text is no Markdown: JSON, which is indented at the end, or an expression. */
  constructor(model, structured) {
    this.#structured = structured;
    this.#parts = {
      summary: h("summary", {}, "Thinking…"),
      thinking: h("div", { class: "plain" }),
      text: h("div", { class: structured ? "plain code" : "markdown" }),
      calls: h("div", {}),
      end: h("footer", { class: "muted" }),
    };
    const { summary, thinking, text, calls, end } = this.#parts;
    this.#parts.folded = h("details", { class: "thinking", hidden: true }, summary, thinking);
    this.node = h("article", { class: "message assistant" }, h("h3", {}, modelName(model)), this.#parts.folded, text, calls, end);
    this.#view = new MarkdownView(text);
  }

  /** Whether the conversation can go on from this answer. */
  get isUsable() {
    return !this.#failed && Boolean(this.message.content || this.message.toolCalls.length);
  }

  /** Add a StreamChatResponse. Returns a sentence about the progress, if the answer has no output yet. */
  add({ progress, deltas = [], done }) {
    const seconds = (performance.now() - this.#start) / 1000;
    for (const { content = "", thinking = "", toolCalls = [] } of deltas) {
      this.#firstSeconds ??= seconds;
      this.message.content += content;
      this.message.thinking += thinking;
      this.message.toolCalls.push(...toolCalls);
    }
    if (done?.finish) this.#parts.end.append(finishText(done.finish, this.#firstSeconds, seconds));
    this.#frame ||= requestAnimationFrame(() => this.#draw());
    return progress ? progressText(progress) : "";
  }

  /** Show that the user has stopped the answer. */
  stop() {
    this.#parts.end.append("Stopped.");
  }

  /** Show that the answer has failed. `retry` asks again, and returns whether it could. */
  fail(text, retry) {
    this.#failed = true;
    const again = h("button", { type: "button", class: "button", onclick: () => {
      if (retry()) again.remove();
    } }, "Try again");
    this.#parts.end.append(h("p", { class: "error" }, text), again);
  }

  /** Show the whole answer. `answerCalls` gets the messages with the results of the tools. */
  end(answerCalls) {
    cancelAnimationFrame(this.#frame);
    this.#draw();
    this.#parts.summary.textContent = "Thinking";
    const { content, toolCalls } = this.message;
    const json = this.#structured && indented(content);
    if (json) this.#parts.text.textContent = json;
    if (toolCalls.length && !this.#failed) this.#parts.calls.append(callsForm(toolCalls, answerCalls));
  }

  #draw() {
    this.#frame = 0;
    const { content, thinking } = this.message;
    this.#parts.folded.hidden = !thinking;
    if (this.#parts.thinking.textContent !== thinking) this.#parts.thinking.textContent = thinking;
    if (this.#structured) this.#parts.text.textContent = content;
    else this.#view.update(content);
  }
}

/** Return the calls with a field for each result. */
function callsForm(calls, answerCalls) {
  const results = calls.map(() => h("textarea", { rows: 2, class: "code", spellcheck: false, required: true }));
  const send = h("button", { type: "submit", class: "button" }, calls.length > 1 ? "Send results" : "Send result");
  const submit = (event) => {
    event.preventDefault();
    const messages = calls.map((call, at) => ({
      role: "tool", content: results[at].value, toolName: call.name, toolCallId: call.id ?? "" }));
    if (!answerCalls(messages)) return;
    for (const each of results) each.readOnly = true;
    send.remove();
  };
  const shown = calls.map(({ name, argumentsJson = "" }, at) => h("div", { class: "tool-call" },
    h("h4", {}, `Call of ${name}`), codeBlock(`Arguments of ${name}`, indented(argumentsJson) ?? argumentsJson),
    field(`Result of ${name}`, results[at])));
  return h("form", { onsubmit: submit }, shown, send);
}
