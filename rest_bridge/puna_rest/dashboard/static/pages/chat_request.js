/** Builds requests of puna.v1.ChatService from the fields of the chat page. Pure functions: no page, no network. */

import { parsed } from "./json_text.js";
import { durationSeconds } from "./values.js";

/**
 * @typedef {object} Settings The fields of the form, as text.
 * @property {string} model
 * @property {string} system
 * @property {string} thinking Name of a ThinkingLevel. Empty: the model decides.
 * @property {string} temperature
 * @property {string} seed
 * @property {string} contextLength
 * @property {string} maxTokens
 * @property {string} tools JSON list of tools, in OpenAI's form or as functions alone.
 * @property {string} format Kind of the structured output: "", "json", "schema" or "regex".
 * @property {string} constraint JSON Schema or regular expression.
 */

/**
 * Return a ChatRequest in the JSON form of protobuf.
 * @param {Settings} settings
 * @param {object[]} messages Messages of the conversation.
 * @throws {Error} A field has a mistake. The text names the field.
 */
export function chatRequest(settings, messages) {
  if (!settings.model) throw new Error("Choose a model first.");
  const system = settings.system.trim() ? [{ role: "system", content: settings.system }] : [];
  return {
    model: settings.model,
    messages: [...system, ...messages],
    tools: tools(settings.tools),
    options: compact({
      truncate: true,
      sampling: compact({
        temperature: number(settings.temperature, "Temperature"),
        seed: integer(settings.seed, "Seed"),
        maxOutputTokens: integer(settings.maxTokens, "Most output tokens"),
      }),
      runtime: compact({ contextLength: integer(settings.contextLength, "Context length") }),
      thinking: settings.thinking || undefined,
      constraint: constraint(settings),
    }),
  };
}

/** Return the tools of a JSON list, each `{"type": "function", "function": {…}}` or the inner object alone. */
export function tools(text) {
  const list = parsed(text, "Tools");
  if (list === undefined) return [];
  if (!Array.isArray(list)) throw new Error("Tools: a JSON list is needed, such as [{…}].");
  return list.map((each, index) => {
    const described = each?.function ?? each;
    if (typeof described?.name !== "string" || !described.name) throw new Error(`Tools: tool ${index + 1} has no name.`);
    return compact({
      type: "function",
      name: described.name,
      description: described.description,
      parametersJson: described.parameters && JSON.stringify(described.parameters),
    });
  });
}

function constraint({ format, constraint: text }) {
  switch (format) {
    case "json":
      return { jsonObject: true };
    case "schema": {
      const schema = parsed(text, "JSON Schema");
      if (typeof schema !== "object" || schema === null || Array.isArray(schema)) {
        throw new Error('JSON Schema: a JSON object is needed, such as {"type": "object"}.');
      }
      return { jsonSchema: text };
    }
    case "regex":
      if (!text) throw new Error("Regular expression: the field is empty.");
      return { regex: text };
    default:
      return undefined;
  }
}

function number(text, name) {
  if (!text.trim()) return undefined;
  const value = Number(text);
  if (!Number.isFinite(value)) throw new Error(`${name}: ${text} is not a number.`);
  return value;
}

function integer(text, name) {
  if (!text.trim()) return undefined;
  if (!/^[+-]?\d+$/.test(text.trim())) throw new Error(`${name}: ${text} is not a whole number.`);
  return text.trim().replace("+", "");
}

function compact(object) {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
}

/**
 * Return a sentence about the end of an answer: counts, rates and the reason.
 *
 * The seconds until the first delta and until the end are those that the browser saw. They are longer than the server's.
 */
export function finishText(finish, firstSeconds, totalSeconds) {
  const { usage = {}, timings = {} } = finish;
  const output = usage.outputTokens ?? 0;
  const decode = durationSeconds(timings.decode);
  const cached = usage.cachedPromptTokens ? ` (${usage.cachedPromptTokens} cached)` : "";
  const parts = [`${usage.promptTokens ?? 0} prompt tokens${cached}`, `${output} output tokens`];
  if (output > 1 && decode > 0) parts.push(`${(output / decode).toFixed(1)} tokens/s`);
  if (firstSeconds !== undefined) parts.push(`first token after ${firstSeconds.toFixed(2)} s`);
  parts.push(`${totalSeconds.toFixed(2)} s in all`);
  if (usage.truncatedTokens) parts.push(`${usage.truncatedTokens} tokens of the prompt were cut off`);
  const reason = REASONS[finish.reason];
  if (reason) parts.push(reason);
  return parts.join(" · ");
}

const REASONS = {
  FINISH_REASON_LENGTH: "ended at the limit of tokens",
  FINISH_REASON_CANCELLED: "cancelled on the server",
};

/** Return a sentence about a request that has no output yet. */
export function progressText(progress) {
  if (progress.queued) return `Waiting in the queue, ${progress.queued.position ?? 0} before it…`;
  if (progress.loading) return loadingText(progress.loading);
  const { doneTokens = 0, totalTokens = 0 } = progress.prefill ?? {};
  return progress.prefill ? `Reading the prompt, ${doneTokens} of ${totalTokens} tokens…` : "";
}

function loadingText({ fraction = 0, doneBytes = 0, totalBytes = 0 }) {
  // JSON has 64-bit integers as strings.
  const [done, total] = [Number(doneBytes), Number(totalBytes)];
  if (total && !fraction) return `Bringing the model's files to its node, ${Math.round((100 * done) / total)} %…`;
  return `Loading the model, ${Math.round(100 * fraction)} %…`;
}
