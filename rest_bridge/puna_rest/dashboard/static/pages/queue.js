/** The queue page: waiting and running requests, which the user can cancel. */

import { explain } from "../api.js";
import { actionButton, h, panel, setText } from "../dom.js";
import { LiveTable } from "../live_table.js";
import { poll } from "../poll.js";
import { count, modelName, seconds } from "../text.js";

export const title = "Queue";

const SERVICE = "puna.v1.ServerService";
const EVERY = 1000;
const PHASES = {
  REQUEST_PHASE_QUEUED: "queued",
  REQUEST_PHASE_LOADING: "loading the model",
  REQUEST_PHASE_PREFILL: "prefill",
  REQUEST_PHASE_DECODE: "decode",
};

/** Show the page. */
export function mount(root, { api, signal, announce }) {
  const problem = h("p", { class: "error", role: "alert" });
  const result = h("p", { class: "error", role: "alert" });
  const summary = h("p", { class: "muted" });
  const cancel = async (row) => {
    setText(result, "");
    try {
      const { ids } = await api.call(`${SERVICE}/CancelRequests`, { ids: [row.item.id] }, { signal });
      announce(ids?.length ? `Request ${row.item.id} is cancelled` : `Request ${row.item.id} had already ended`);
      await refresh();
      if (document.activeElement === document.body) section.querySelector("h2").focus();
    } catch (error) {
      if (!signal.aborted) setText(result, explain(error));
    }
  };
  const columns = [
    { title: "Request", text: (each) => each.id },
    { title: "Model", text: (each) => modelName(each.model) || "–" },
    { title: "Method", text: (each) => each.method },
    { title: "Phase", text: (each) => PHASES[each.phase] ?? "–" },
    { title: "Place", number: true, text: (each) => (each.queuePosition ? count(each.queuePosition) : "–") },
    { title: "Tokens", number: true, text: (each) => count(each.outputTokens) },
    { title: "Time", number: true, text: (each) => seconds(Math.max((Date.now() - Date.parse(each.startTime)) / 1000, 0)) },
    {
      title: "Actions",
      actions: (row) => actionButton("Cancel", () => cancel(row), { "aria-label": `Cancel request ${row.item.id}` }),
    },
  ];
  const empty = "No request runs or waits.";
  const table = new LiveTable("Requests, oldest first", columns, { key: (each) => each.id, empty });
  const section = panel("Requests", summary, table.node);
  const refresh = async () => {
    const requests = await api.list(`${SERVICE}/ListRequests`, {}, "requests", { signal });
    const waiting = requests.filter((each) => each.queuePosition || each.phase === "REQUEST_PHASE_QUEUED").length;
    setText(summary, requests.length ? `${count(requests.length - waiting)} running, ${count(waiting)} waiting` : "");
    table.update(requests);
  };
  root.append(problem, result, section);
  poll(refresh, EVERY, { signal, show: (text) => setText(problem, text) });
}
