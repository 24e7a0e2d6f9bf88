/** The events of the server: models that were loaded and removed, hosts that died, and nodes that were lost, newest first. */

import { panel } from "../dom.js";
import { LiveTable } from "../live_table.js";
import { sleep } from "../poll.js";
import { clock, count, modelName, seconds } from "../text.js";

const METHOD = "puna.v1.DiagnosticsService/StreamServerEvents";
const RETRY = 2000;
const MOST = 100;

/** What the causes of removals mean, by the endings of their names on the wire and in metrics. */
export const CAUSES = {
  expired: "unused for as long as its keep-alive lasts",
  evicted: "evicted to make room for another model",
  unloaded: "unloaded on request",
  crashed: "its host died",
  ended: "the server ended",
};

/** Return the panel of the events. It is hidden while the server does not show them. */
export function eventsPanel({ api, signal, announce }) {
  const columns = [
    { title: "Time", text: ({ time }) => clock(time) },
    { title: "Model or node", text: subject },
    { title: "What happened", text: describe },
  ];
  const table = new LiveTable("Events, newest first", columns, { key: ({ number }) => number, empty: "Nothing has happened yet." });
  const section = panel("Events", table.node);
  section.hidden = true;
  follow({ api, signal }, (events, isNew) => {
    section.hidden = events === null;
    table.update(events ?? []);
    for (const each of isNew) if (each.hostDied || each.nodeLost) announce(`${subject(each)}: ${describe(each)}`);
  });
  return section;
}

/** Call `show` with the latest events and the new ones among them, and with null while there are none to be had. */
async function follow({ api, signal }, show) {
  while (!signal.aborted) {
    let events = null;
    try {
      for await (const { events: some = [] } of api.stream(METHOD, { follow: true }, { signal })) {
        // The first message has what happened before, which is no news.
        const isNew = events ? some : [];
        events = [...some.toReversed(), ...(events ?? [])].slice(0, MOST);
        show(events, isNew);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.code === "unimplemented" || error.code === "permission_denied") return show(null, []);
    }
    await sleep(RETRY, signal);
  }
}

function subject({ modelLoaded, modelLoadFailed, modelRemoved, hostDied, nodeLost }) {
  return nodeLost?.node ?? modelName((modelLoaded ?? modelLoadFailed ?? modelRemoved ?? hostDied)?.model);
}

function describe({ modelLoaded, modelLoadFailed, modelRemoved, hostDied, nodeLost }) {
  if (modelLoaded) return `loaded by ${modelLoaded.backend} in ${seconds(Number.parseFloat(modelLoaded.load ?? "0"))}`;
  if (modelLoadFailed) return `not loaded: ${modelLoadFailed.errorMessage || modelLoadFailed.errorReason}`;
  if (nodeLost) return `lost with ${count(nodeLost.hosts)} ${nodeLost.hosts === 1 ? "host" : "hosts"}: ${nodeLost.errorMessage}`;
  if (hostDied) return `its host died: ${hostDied.status}`;
  if (!modelRemoved) return "something that this page does not know";
  const { cause = "", evictedForModel } = modelRemoved;
  if (evictedForModel) return `evicted to make room for ${modelName(evictedForModel)}`;
  return CAUSES[cause.replace("MODEL_REMOVAL_CAUSE_", "").toLowerCase()] ?? "removed";
}
