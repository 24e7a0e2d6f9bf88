/** One request: facts, durations, the prompt as rendered, and the answer. Everything is shown as text. */

import { actionButton, h, panel, setText } from "../dom.js";
import { poll } from "../poll.js";
import { clock, count, seconds } from "../text.js";
import { codeBlock } from "./code_block.js";
import { indented } from "./json_text.js";
import { cancel, isRunning, stateText, why } from "./request_state.js";
import { durationSeconds } from "./values.js";

const EVERY = 1000;
const MILLISECONDS = { fractionalSecondDigits: 3 };
const STAGES = ["queue", "load", "render", "prefill", "decode"];

/** Show the request with a number. A running one is followed to its end. */
export function mountRecord(root, { api, signal, announce }, number) {
  const problem = h("p", { class: "error", role: "alert" });
  const failed = h("p", { class: "error", role: "alert" });
  const error = h("p", { class: "error" });
  const facts = h("dl", { class: "facts" });
  const times = h("div", { class: "stages" });
  const notes = h("p", { class: "warning", hidden: true });
  const texts = new Texts();
  const back = h("a", { class: "button", href: "#/requests" }, "All requests");
  const log = h("a", { class: "button" }, "Its log lines");
  let record;

  const options = { signal, announce, show: (text) => setText(failed, text), refresh: () => refresh() };
  const button = actionButton("Cancel", () => cancel(api, record, options), { hidden: true });
  const bar = h("div", { class: "toolbar" }, back, log, button);
  const section = panel(`Request ${number}`, bar, failed, error, facts, times, notes);
  section.hidden = true;
  const ended = new AbortController();
  signal.addEventListener("abort", () => ended.abort());

  const refresh = async () => {
    const answer = await api.call("puna.v1.DiagnosticsService/GetRequestRecord", { number }, { signal });
    record = answer.record;
    const { content = {} } = record;
    if (section.hidden) {
      section.hidden = false;
      section.querySelector("h2").focus();
    }
    if (!isRunning(record) && document.activeElement === button) back.focus();
    log.href = `#/log/${encodeURIComponent(record.requestId)}`;
    button.hidden = !isRunning(record);
    setText(error, content.errorMessage ? `${record.errorReason ?? ""}: ${content.errorMessage}` : "");
    showFacts(facts, factsOf(record));
    showStages(times, record.timings ?? {});
    setText(notes, notesOf(content).join(" "));
    notes.hidden = !notes.textContent;
    texts.update(textsOf(content));
    if (!isRunning(record)) ended.abort();
  };
  root.append(problem, section, texts.node);
  poll(refresh, EVERY, { signal: ended.signal, show: (text) => setText(problem, text), words: why });
}

/** Titled blocks of text that change in place, so that a selection and the place of scrolling stay. */
class Texts {
  node = h("div", { class: "page" });
  #blocks = new Map();

  /** Show pairs of title and text in their order. Titles are unique. */
  update(pairs) {
    const wanted = new Set(pairs.map(([title]) => title));
    for (const [title, { section }] of this.#blocks) {
      if (wanted.has(title)) continue;
      section.remove();
      this.#blocks.delete(title);
    }
    pairs.forEach(([title, text], at) => {
      const block = this.#blocks.get(title) ?? this.#make(title);
      setText(block.pre, text);
      if (this.node.children[at] !== block.section) this.node.insertBefore(block.section, this.node.children[at] ?? null);
    });
  }

  #make(title) {
    const pre = codeBlock(title, "");
    const block = { pre, section: panel(title, pre) };
    this.#blocks.set(title, block);
    return block;
  }
}

function factsOf(record) {
  const { usage = {}, content = {} } = record;
  const number = (value) => value && count(value);
  return [
    ["State", stateText(record)], ["Request id", record.requestId], ["Model", record.model], ["Method", record.method],
    ["HTTP route", record.httpRoute], ["API key", record.keyName],
    ["Arrived", clock(record.startTime, MILLISECONDS)],
    ["Ended", record.endTime && clock(record.endTime, MILLISECONDS)],
    ["Before it in the queue on arrival", number(record.arrivalQueuePosition)],
    ["Before it in the queue now", number(record.queuePosition)],
    ["Prompt tokens", number(usage.promptTokens)], ["Cached prompt tokens", number(usage.cachedPromptTokens)],
    ["Truncated prompt tokens", number(usage.truncatedTokens)], ["Output tokens", number(usage.outputTokens)],
    ["Accepted draft tokens", usage.draftTokens && `${usage.acceptedDraftTokens ?? 0} of ${usage.draftTokens}`],
    ["Embeddings", number(record.vectorCount)], ["Tool calls", number(record.toolCallCount)],
    ["Redacted passages", number(content.redactedCount)],
  ].filter(([, value]) => value);
}

function showFacts(node, facts) {
  const known = new Map([...node.children].map((each) => [each.dataset.name, each]));
  node.replaceChildren(...facts.map(([name, value]) => {
    const entry = known.get(name) ?? h("div", {}, h("dt", {}, name), h("dd", {}));
    entry.dataset.name = name;
    setText(entry.lastChild, value);
    return entry;
  }));
}

function notesOf(content) {
  return [
    content.promptOmitted && "The settings of the server keep no prompts.",
    content.answerOmitted && "The settings of the server keep no answers.",
    content.truncated && "The text is longer than the bound of a record, and its end is cut off.",
  ].filter(Boolean);
}

/** Return pairs of title and text of all that a record holds. */
function textsOf(content) {
  const { sequences = [], answers = [], inputs = [], media = [] } = content;
  const json = (text = "") => indented(text) ?? text;
  const nth = (list, at) => (list.length > 1 ? ` ${at + 1}` : "");
  return [
    ...sequences.flatMap((each, at) => [
      [`Prompt${nth(sequences, at)}, as the model got it`, each.prompt],
      [`Tokens of prompt${nth(sequences, at)}`, each.promptTokenIds?.join(" ")],
      [`Messages${nth(sequences, at)}, as the backend got them`, json(each.messagesJson)],
      [`Constraint${nth(sequences, at)}`, each.constraint],
    ]),
    ["Inputs", inputs.join("\n")],
    ["Images and sounds", media.map((each) => `${count(each.sizeBytes)} bytes, SHA-256 ${each.digest}`).join("\n")],
    ...answers.flatMap((each, at) => [
      [`Thinking${nth(answers, at)}`, each.thinking],
      [`Answer${nth(answers, at)}`, each.text],
      [`Tool calls${nth(answers, at)}`, (each.toolCalls ?? []).map((call) => `${call.name} ${json(call.argumentsJson)}`).join("\n")],
    ]),
    ["Options", content.optionsJson === "{}" ? "" : json(content.optionsJson)],
  ].filter(([, text]) => text);
}

/** Show the stages as parts of a bar, with their durations in words below it. */
function showStages(node, timings) {
  const parts = STAGES.map((name) => [name, durationSeconds(timings[name])]).filter(([, length]) => length > 0);
  const sum = parts.reduce((total, [, length]) => total + length, 0);
  const bar = h("div", { class: "stage-bar", "aria-hidden": "true" }, parts.map(([name, length]) => {
    const part = h("div", { class: `stage stage-${name}` });
    part.style.flexGrow = String(length / sum);
    return part;
  }));
  const words = parts.map(([name, length]) => h("li", { class: `stage-${name}` }, `${name} ${seconds(length)}`));
  const first = durationSeconds(timings.timeToFirstToken);
  if (first) words.push(h("li", {}, `first token after ${seconds(first)}`));
  words.push(h("li", {}, `${seconds(durationSeconds(timings.total))} in all`));
  node.replaceChildren(...(sum ? [bar] : []), h("ul", { class: "stage-legend" }, words));
}
