/** The embeddings page: texts in the order of their cosine similarity to a query. */

import { explain } from "../api.js";
import { actionButton, field, h, panel, setText } from "../dom.js";
import { count } from "../text.js";
import { modelChoice } from "./model_choice.js";

export const title = "Embeddings";

const AT_ONCE = 4;
const EXAMPLE = {
  query: "Why is the sky blue?",
  texts: "the color of the sky\nWhere does the blue of the sky come from?\nHow do I bake bread?\nThe capital of Norway is Oslo.",
};

/** Show the page. */
export function mount(root, { api, signal, announce }) {
  const problem = h("p", { class: "error", role: "alert" });
  const status = h("p", { class: "muted" });
  const result = h("div", {});
  const { node: model, models } = modelChoice(api, "embedding", signal);
  const query = h("input", { value: EXAMPLE.query, autocomplete: "off", onkeydown: (event) => event.key === "Enter" && compare.click() });
  const texts = h("textarea", { rows: 8, value: EXAMPLE.texts });
  const dimensions = h("input", { inputMode: "numeric", placeholder: "all", autocomplete: "off" });
  const truncate = h("input", { type: "checkbox", checked: true });

  const say = (text) => {
    setText(status, text);
    if (text) announce(text);
  };
  const run = async () => {
    const list = texts.value.split("\n").map((each) => each.trim()).filter(Boolean);
    setText(problem, "");
    result.replaceChildren();
    try {
      const request = embedRequest(model.value, dimensions.value, truncate.checked);
      if (!query.value.trim() || !list.length) throw new Error("A query and at least one text are needed.");
      setText(status, "The model makes the embeddings…");
      const vectors = await embedAll(api, request, [query.value, ...list], signal);
      if (vectors[0].error) throw vectors[0].error;
      result.append(...shown(list, vectors));
      say(describe(vectors));
    } catch (error) {
      if (signal.aborted) return;
      setText(status, "");
      setText(problem, explain(error));
    }
  };
  const compare = actionButton("Compare", run, { class: "button primary" });
  const form = panel("Query and texts", field("Model", model), field("Query", query), field("Texts", texts, "One text in each line."),
    h("details", {}, h("summary", {}, "Options"),
      field("Dimensions", dimensions, "Keeps this many values of each vector. For models that are trained for it."),
      h("label", {}, truncate, " Cut texts that are longer than the context of the model")),
    h("div", { class: "toolbar" }, compare), status, problem);
  root.append(h("div", { class: "embeddings" }, form, panel("Nearest first", result)));
  models.then(
    (found) => found.size || setText(problem, "No model of this server makes embeddings. Pull one on the page Models."),
    (error) => signal.aborted || setText(problem, error.message),
  );
}

function embedRequest(model, dimensions, truncate) {
  if (!model) throw new Error("Choose a model first.");
  if (!/^\d*$/.test(dimensions.trim())) throw new Error(`Dimensions: ${dimensions} is not a whole number.`);
  return { model, dimensions: Number(dimensions), truncate };
}

/** Embed each text in a call of its own, so that counts and errors belong to one text. */
async function embedAll(api, request, texts, signal) {
  const found = new Array(texts.length);
  let next = 0;
  const work = async () => {
    while (next < texts.length) {
      const at = next;
      next += 1;
      try {
        const answer = await api.call("puna.v1.EmbedService/Embed", { ...request, inputs: [texts[at]] }, { signal });
        // Values that have no number in JSON, such as "NaN", are texts.
        found[at] = { values: answer.vectors[0].values.map(Number), usage: answer.usage ?? {} };
      } catch (error) {
        if (signal.aborted) throw error;
        found[at] = { error };
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return found;
}

/** Return the cosine similarity of two vectors, between -1 and 1. A vector of zeros is similar to nothing: 0. */
function cosine(left, right) {
  let product = 0;
  let leftSquare = 0;
  let rightSquare = 0;
  for (let at = 0; at < left.length; at += 1) {
    product += left[at] * right[at];
    leftSquare += left[at] ** 2;
    rightSquare += right[at] ** 2;
  }
  return product / Math.sqrt(leftSquare * rightSquare) || 0;
}

function describe([query, ...vectors]) {
  const good = [query, ...vectors].filter((each) => !each.error);
  const tokens = good.reduce((sum, each) => sum + (each.usage.promptTokens ?? 0), 0);
  return `${count(good.length - 1)} texts compared · vectors of ${count(query.values.length)} values · ${count(tokens)} tokens`;
}

/** Return the table of the texts, and the errors of those that could not be embedded. */
function shown(texts, [query, ...vectors]) {
  const rows = vectors.map((each, at) => ({ ...each, text: texts[at],
    similarity: each.error ? 0 : cosine(query.values, each.values) }));
  const good = rows.filter((each) => !each.error).sort((left, right) => right.similarity - left.similarity);
  const heads = [["Similarity", "number"], ["Text"], ["Tokens", "number"]];
  const table = h("table", { class: "table" }, h("caption", { class: "visually-hidden" }, "Texts by similarity, nearest first"),
    h("thead", {}, h("tr", {}, heads.map(([name, style]) => h("th", { scope: "col", class: style }, name)))),
    h("tbody", {}, good.map(row)));
  const errors = rows.filter((each) => each.error)
    .map((each) => h("p", { class: "error" }, `“${each.text.slice(0, 80)}”: ${explain(each.error)}`));
  return [table, ...errors];
}

function row({ similarity, text, usage }) {
  const bar = h("div", { class: "similarity-bar", "aria-hidden": "true" });
  bar.style.inlineSize = `${Math.max(0, similarity) * 100}%`;
  const cut = usage.truncatedTokens && h("span", { class: "warning" }, ` (${count(usage.truncatedTokens)} cut off)`);
  return h("tr", {}, h("td", { class: "number" }, similarity.toFixed(4)), h("td", {}, text, bar),
    h("td", { class: "number" }, count(usage.promptTokens), cut));
}
