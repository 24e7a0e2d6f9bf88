/** The request viewer: running and past requests at `#/requests`, and one of them at `#/requests/NUMBER`. */

import { actionButton, choice, field, h, panel, setText } from "../dom.js";
import { LiveTable } from "../live_table.js";
import { poll } from "../poll.js";
import { clock, count, modelName, seconds } from "../text.js";
import { mountRecord } from "./request_record.js";
import { cancel, isRunning, stateText, why } from "./request_state.js";
import { durationSeconds } from "./values.js";

export const title = "Requests";

const EVERY = 2000;
const MOST = 200;
const OUTCOMES = ["running", "succeeded", "failed", "cancelled", "refused"];

/** Number of the request that was shown last. Its link gets the focus when the user comes back to the list. */
let opened = "";

/** Show the page. */
export function mount(root, frame) {
  const [number] = frame.params;
  if (number) mountRecord(root, frame, number);
  else mountList(root, frame);
  opened = number ?? "";
}

function mountList(root, { api, signal, announce }) {
  const problem = h("p", { class: "error", role: "alert" });
  const failed = h("p", { class: "error", role: "alert" });
  const summary = h("p", { class: "muted" });
  const model = h("input", { placeholder: "all", autocomplete: "off", onchange: () => refresh() });
  const outcome = choice([["", "all"], ...OUTCOMES.map((each) => [`REQUEST_OUTCOME_${each.toUpperCase()}`, each])],
    { onchange: () => refresh() });
  const text = h("input", { type: "search", placeholder: "id, key, reason", oninput: () => draw() });
  const buttons = new Map();
  const last = opened;
  let records = [];
  let more = false;

  const actions = (row) => {
    const { number, requestId } = row.item;
    const show = (words) => setText(failed, words);
    const button = actionButton("Cancel", () => cancel(api, row.item, { signal, announce, show, refresh }),
      { "aria-label": `Cancel request ${requestId}` });
    buttons.set(number, button);
    return [button, h("a", { class: "button", href: `#/requests/${number}`, "aria-label": `Details of request ${requestId}` }, "Details")];
  };
  const columns = [
    { title: "Request", text: (each) => each.requestId },
    { title: "Arrived", text: (each) => clock(each.startTime) },
    { title: "Model", text: (each) => modelName(each.model) || "–" },
    { title: "Call", text: (each) => (each.httpRoute || each.method).replace(" ", "\u00a0") },
    { title: "Key", text: (each) => each.keyName || "–" },
    { title: "State", text: stateText },
    { title: "Prompt", number: true, text: ({ usage }) => tokens(usage?.promptTokens) },
    { title: "Output", number: true, text: ({ usage }) => tokens(usage?.outputTokens) },
    { title: "Time", number: true, text: ({ timings }) => seconds(durationSeconds(timings?.total)) },
    { title: "Actions", actions },
  ];
  const table = new LiveTable("Requests, newest first", columns, { key: (each) => each.number, empty: "There is no such request." });

  const draw = () => {
    const wanted = text.value.trim().toLowerCase();
    const shown = records.filter((each) => searched(each).includes(wanted));
    table.update(shown);
    for (const each of shown) showButton(buttons.get(each.number), isRunning(each));
    const kept = new Set(records.map((each) => each.number));
    for (const number of buttons.keys()) if (!kept.has(number)) buttons.delete(number);
    const older = more ? `; there are older ones than the newest ${MOST}` : "";
    setText(summary, `${count(shown.length)} of ${count(records.length)} requests${older}`);
  };
  let asked = 0;
  const refresh = async () => {
    const request = { model: model.value.trim(), pageSize: MOST, ...(outcome.value && { outcome: outcome.value }) };
    const mine = (asked += 1);
    const page = await api.call("puna.v1.DiagnosticsService/ListRequestRecords", request, { signal });
    // An answer to an earlier choice of the fields may come later.
    if (mine !== asked) return;
    records = page.records ?? [];
    more = Boolean(page.nextPageToken);
    const isFirst = section.hidden;
    section.hidden = false;
    draw();
    if (isFirst && last) section.querySelector(`a[href="#/requests/${CSS.escape(last)}"]`)?.focus();
  };
  const section = panel("Requests",
    h("div", { class: "toolbar" }, field("Model", model), field("State", outcome), field("Search", text)), summary, table.node);
  section.hidden = true;
  root.append(problem, failed, section);
  poll(refresh, EVERY, { signal, show: (error) => setText(problem, error), words: why });
}

/** Show a button or hide it. The focus goes on to the link beside it. */
function showButton(button, shown) {
  if (!shown && document.activeElement === button) button.nextElementSibling.focus();
  button.hidden = !shown;
}

function tokens(value) {
  return value ? count(value) : "–";
}

function searched(record) {
  const { requestId, method, keyName, errorReason, httpRoute, model } = record;
  return [requestId, method, keyName, errorReason, httpRoute, model, stateText(record)].join(" ").toLowerCase();
}
