/** Pulls of models. They go on when another page is shown, and end with the tab or when the user cancels them. */

import { explain } from "../api.js";
import { field, h, panel, setText } from "../dom.js";
import { bytes, modelName, seconds } from "../text.js";

const METHOD = "puna.v1.ModelsService/PullModel";
const SPEED_OVER = 2000;

/** The pulls of this tab, oldest first. Those that succeeded are removed. */
const pulls = new Set();

/** A pull with its progress. It dispatches "change". */
class Pull extends EventTarget {
  #abort = new AbortController();
  #blobs = new Map();
  #samples = [];

  constructor(name) {
    super();
    this.name = name;
    this.status = "starting";
    this.failure = "";
    this.ended = false;
  }

  /** Run the pull to its end. Return the model, or null if it did not succeed. */
  async run(api, insecure) {
    let model = null;
    try {
      for await (const step of api.stream(METHOD, { name: this.name, insecure }, { signal: this.#abort.signal })) {
        if (step.progress) this.#advance(step.progress);
        model = step.model ?? model;
      }
    } catch (error) {
      this.failure = this.#abort.signal.aborted ? "cancelled; a later pull goes on from here" : reason(error);
    }
    this.ended = true;
    this.#change();
    return model;
  }

  /** End the pull. */
  cancel() {
    this.#abort.abort();
  }

  /** Bytes of all files that are known so far, and those that have arrived. */
  get total() {
    return this.#sum("total");
  }

  get completed() {
    return this.#sum("completed");
  }

  /** Bytes per second in the last seconds; 0: unknown. */
  get speed() {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    return first === last ? 0 : ((last.completed - first.completed) / (last.time - first.time)) * 1000;
  }

  #advance({ status, digest, totalBytes, completedBytes }) {
    this.status = status ?? "";
    if (digest) {
      this.#blobs.set(digest, { total: Number(totalBytes ?? 0), completed: Number(completedBytes ?? 0) });
      const now = performance.now();
      this.#samples.push({ time: now, completed: this.completed });
      while (this.#samples.length > 2 && now - this.#samples[0].time > SPEED_OVER) this.#samples.shift();
    }
    this.#change();
  }

  #sum(name) {
    let sum = 0;
    for (const blob of this.#blobs.values()) sum += blob[name];
    return sum;
  }

  #change() {
    this.dispatchEvent(new Event("change"));
  }
}

/** Return the panel for pulling models. `onDone` is called after each pull that succeeded. */
export function pullPanel({ api, signal, announce, onDone }) {
  const name = h("input", { required: true, placeholder: "llama3.2:1b", autocomplete: "off", spellcheck: false });
  const insecure = h("input", { type: "checkbox" });
  const list = h("div", { class: "page" });
  const follow = (pull) => list.append(row(pull, { signal, onRemove: () => pulls.delete(pull) }));
  const onsubmit = async (event) => {
    event.preventDefault();
    const pull = new Pull(name.value.trim());
    pulls.add(pull);
    follow(pull);
    name.value = "";
    announce(`Pulling ${pull.name}`);
    const model = await pull.run(api, insecure.checked);
    announce(model ? `${modelName(model.name)} is pulled` : `Pulling ${pull.name} failed: ${pull.failure}`);
    if (model) pulls.delete(pull);
    if (!signal.aborted) onDone();
  };
  pulls.forEach(follow);
  const hint = h("small", { class: "muted", id: "pull-hint" }, "A name of Ollama's registry, or HOST/NAMESPACE/NAME:TAG of another one.");
  name.setAttribute("aria-describedby", hint.id);
  return panel(
    "Pull a model",
    h(
      "form",
      { class: "toolbar", onsubmit },
      h("div", { class: "grow" }, field("Name", name)),
      h("label", { class: "compact" }, insecure, "Without TLS"),
      h("button", { type: "submit", class: "button primary" }, "Pull"),
    ),
    hint,
    list,
  );
}

function row(pull, { signal, onRemove }) {
  const bar = h("progress", { "aria-label": `Progress of ${pull.name}` });
  const text = h("p", { class: "muted" });
  const failure = h("p", { class: "error" });
  const cancel = h("button", { type: "button", class: "button", onclick: () => pull.cancel() }, "Cancel");
  const remove = h("button", { type: "button", class: "button", hidden: true }, "Remove");
  const node = h(
    "div",
    { class: "field pull" },
    h("div", { class: "toolbar" }, h("strong", { class: "grow" }, pull.name), cancel, remove),
    bar,
    text,
    failure,
  );
  remove.addEventListener("click", () => (node.remove(), onRemove()));
  const show = () => {
    cancel.hidden = pull.ended;
    remove.hidden = !pull.ended;
    bar.hidden = pull.ended && Boolean(pull.failure);
    if (pull.total) {
      bar.max = pull.total;
      bar.value = pull.completed;
    }
    if (pull.ended && !pull.failure) bar.value = bar.max;
    setText(failure, pull.failure);
    setText(text, pull.failure ? "" : describe(pull));
  };
  pull.addEventListener("change", show, { signal });
  show();
  return node;
}

/** Return why a pull failed. A registry's own words for a name that it does not have help nobody. */
function reason(error) {
  return error.reason === "REMOTE_MODEL_NOT_FOUND" ? "The registry has no model of this name." : explain(error);
}

function describe(pull) {
  const parts = [pull.status];
  if (pull.total) parts.push(`${bytes(pull.completed)} of ${bytes(pull.total)}`);
  if (!pull.ended && pull.speed > 0) {
    parts.push(`${bytes(pull.speed)}/s`, `${seconds((pull.total - pull.completed) / pull.speed)} left`);
  }
  return parts.join(" · ");
}
