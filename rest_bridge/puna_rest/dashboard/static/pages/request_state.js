/** The state of a RequestRecord in words, and how a running one is cancelled. */

import { explain } from "../api.js";
import { enumName } from "./values.js";

/** Whether a request waits or runs. */
export function isRunning(record) {
  return record.outcome === "REQUEST_OUTCOME_RUNNING";
}

/** Return the phase of a running request, or how another one ended. */
export function stateText(record) {
  if (isRunning(record)) {
    if (record.queuePosition) return `queued, ${record.queuePosition} before it`;
    return enumName(record.phase, "REQUEST_PHASE_") || "running";
  }
  const outcome = enumName(record.outcome, "REQUEST_OUTCOME_");
  const reason = record.errorReason || enumName(record.finishReason, "FINISH_REASON_");
  return reason && reason !== "stop" ? `${outcome}: ${reason}` : outcome;
}

/** Return why no records are shown, and what helps. */
export function why(error) {
  switch (error.code) {
    case "unimplemented":
      return "This server keeps no requests. If it is started with PUNA_RECORDS=1, it keeps the last ones in its memory, "
        + "with their prompts and answers, and this page shows them. The page Queue shows the running ones.";
    case "not_found":
      return "There is no record of this request. The server drops the oldest ones, and all of them when it ends.";
    default:
      return explain(error);
  }
}

/** Cancel a running request, say the result, and call `refresh`. */
export async function cancel(api, record, { signal, announce, show, refresh }) {
  const name = `Request ${record.requestId}`;
  try {
    const { ids } = await api.call("puna.v1.ServerService/CancelRequests", { ids: [record.requestId] }, { signal });
    announce(ids?.length ? `${name} is cancelled.` : `${name} had already ended.`);
    await refresh();
  } catch (error) {
    if (!signal.aborted) show(`${name} cannot be cancelled. ${explain(error)}`);
  }
}
