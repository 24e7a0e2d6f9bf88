/** The nodes, which are the machines other than the server's own that run its hosts, and the replicas of models. */

import { panel } from "../dom.js";
import { LiveTable } from "../live_table.js";
import { sleep } from "../poll.js";
import { bytes, cacheUse, count, modelName } from "../text.js";

const METHOD = "puna.v1.ServerService/ListNodes";
const EVERY = 3000;
/** A server without nodes gets none before it is started again. */
const WITHOUT_NODES = ["unimplemented", "permission_denied"];

/** Return the panel of the nodes. It is hidden while the server has none, or does not show them. */
export function nodesPanel({ api, signal }) {
  const columns = [
    { title: "Node", text: (each) => each.address },
    { title: "State", text: ({ state = "" }) => state.replace("NODE_STATE_", "").toLowerCase() || "unknown" },
    { title: "Hosts", number: true, text: (each) => count(each.hosts) },
    { title: "Free memory", number: true, text: (each) => bytes(each.freeMemoryBytes) },
    { title: "Losses", number: true, text: ({ lostCount = 0 }) => `${count(lostCount)}` },
    { title: "Error", text: ({ error }) => error || "–" },
  ];
  const table = new LiveTable("Nodes of the server", columns, { key: (each) => each.address, empty: "" });
  const section = panel("Nodes", table.node);
  section.hidden = true;
  follow({ api, signal }, (nodes) => {
    section.hidden = !nodes.length;
    table.update(nodes);
  });
  return section;
}

/** Return the panel of the replicas and a function that shows those of loaded models. It is hidden while it would say nothing new. */
export function replicasPanel() {
  const columns = [
    { title: "Replica", text: ({ model, number }) => `${modelName(model)} ${number}` },
    { title: "Node", text: ({ node }) => node || "this machine" },
    { title: "Process", number: true, text: ({ processId }) => String(processId ?? "–") },
    { title: "Memory", number: true, text: (each) => bytes(each.sizeBytes) },
    { title: "Slots", number: true, text: (each) => count(each.slots) },
    { title: "KV cache", number: true, text: cacheUse },
    { title: "Running", number: true, text: (each) => count(each.activeRequests) },
    { title: "Waiting", number: true, text: (each) => count(each.queuedRequests) },
  ];
  const table = new LiveTable("Replicas of models", columns, { key: ({ model, number }) => `${model} ${number}`, empty: "" });
  const section = panel("Replicas", table.node);
  section.hidden = true;
  const update = (models) => {
    const replicas = models.flatMap((each) => (each.replicas ?? []).map((replica) => ({ ...replica, model: each.model.name })));
    // A host on this machine is all that the row of its model tells.
    section.hidden = replicas.length <= models.length && !replicas.some((each) => each.node);
    table.update(replicas);
  };
  return { section, update };
}

/** Call `show` with the nodes again and again. A server that has none, or shows none, is not asked again. */
async function follow({ api, signal }, show) {
  while (!signal.aborted) {
    try {
      const nodes = await api.list(METHOD, {}, "nodes", { signal });
      if (!nodes.length) return;
      show(nodes);
    } catch (error) {
      // The page has told that the server does not answer.
      if (signal.aborted || WITHOUT_NODES.includes(error.code)) return;
    }
    await sleep(EVERY, signal);
  }
}
