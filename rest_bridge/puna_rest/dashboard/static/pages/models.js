/** The models page: what is loaded, what is installed, the nodes, and pulling more. */

import { explain } from "../api.js";
import { actionButton, ask, h, panel, setText } from "../dom.js";
import { LiveTable } from "../live_table.js";
import { poll } from "../poll.js";
import { ago, bytes, cacheUse, count, modelName, seconds } from "../text.js";
import { nodesPanel, replicasPanel } from "./nodes.js";
import { pullPanel } from "./pulls.js";

export const title = "Models";

const SERVICE = "puna.v1.ModelsService";
const LOADED_EVERY = 2000;
const INSTALLED_EVERY = 10_000;
/** A model without an end is kept for about 290 years. */
const FOREVER = 10 * 365 * 86_400;

/** Show the page. */
export function mount(root, context) {
  new ModelsPage(root, context).start();
}

class ModelsPage {
  constructor(root, { api, signal, announce }) {
    Object.assign(this, { api, signal, announce });
    this.loadedNames = new Set();
    this.problem = h("p", { class: "error", role: "alert" });
    this.result = h("p", { class: "error", role: "alert" });
    this.loaded = this.#loadedTable();
    this.installed = this.#installedTable();
    this.replicas = replicasPanel();
    this.pending = h("p", { class: "muted", hidden: true });
    this.loadedPanel = panel("Loaded", this.loaded.node, this.pending);
    this.installedPanel = panel("Installed", this.installed.node);
    root.append(this.problem, this.result, this.loadedPanel, this.replicas.section, nodesPanel({ api, signal }), this.installedPanel);
    root.append(pullPanel({ api, signal, announce, onDone: () => this.refresh() }));
  }

  start() {
    const { signal } = this;
    const show = (text) => setText(this.problem, text);
    poll(() => this.#listLoaded(), LOADED_EVERY, { signal, show });
    poll(() => this.#listInstalled(), INSTALLED_EVERY, { signal, show });
  }

  /** Ask for both lists now, after something has changed. */
  async refresh() {
    try {
      await Promise.all([this.#listLoaded(), this.#listInstalled()]);
    } catch {
      // The next regular question reports what is wrong.
    }
  }

  async #listLoaded() {
    const answer = await this.api.call(`${SERVICE}/ListLoadedModels`, { pageSize: 1000 }, { signal: this.signal });
    const models = answer.models ?? [];
    this.loadedNames = new Set(models.map((each) => each.model.name));
    this.loaded.update(models);
    this.replicas.update(models);
    const pending = answer.pendingRequests ?? 0;
    this.pending.hidden = !pending;
    setText(this.pending, `${pending} ${pending === 1 ? "request waits" : "requests wait"} for a model to be loaded.`);
    this.installed.update(this.models ?? []);
  }

  async #listInstalled() {
    this.models = await this.api.list(`${SERVICE}/ListModels`, {}, "models", { signal: this.signal });
    this.installed.update(this.models);
  }

  #loadedTable() {
    const columns = [
      { title: "Model", text: ({ model }) => modelName(model.name) },
      { title: "Backend", text: (each) => each.backend },
      { title: "Memory", number: true, text: memory },
      { title: "Context", number: true, text: (each) => (each.contextLength ? count(each.contextLength) : "–") },
      { title: "KV cache", number: true, text: cacheUse },
      { title: "Running", number: true, text: (each) => count(each.activeRequests) },
      { title: "Waiting", number: true, text: (each) => count(each.queuedRequests) },
      { title: "Unloads in", text: unloadsIn },
      {
        title: "Actions",
        actions: (row) => {
          row.pin = this.#button(row, "Pin", (item) => this.#pin(item.model.name, !item.pinned));
          return [row.pin, this.#button(row, "Unload", (item) => this.#unload(item.model.name))];
        },
        // The button is a switch, whose name stays the same.
        refresh: ({ pin, item }) => pin.setAttribute("aria-pressed", String(Boolean(item.pinned))),
      },
    ];
    return new LiveTable("Loaded models", columns, { key: (each) => each.model.name, empty: "No model is loaded." });
  }

  #installedTable() {
    const columns = [
      { title: "Model", text: (each) => modelName(each.name) },
      { title: "State", text: (each) => (this.loadedNames.has(each.name) ? "loaded" : "–") },
      { title: "Size", number: true, text: (each) => bytes(each.sizeBytes) },
      { title: "Parameters", number: true, text: (each) => each.details?.parameterSize || "–" },
      { title: "Quantization", text: (each) => each.details?.quantizationLevel || "–" },
      { title: "Context", number: true, text: ({ details }) => (Number(details?.contextLength) ? count(details.contextLength) : "–") },
      { title: "Capabilities", text: (each) => (each.capabilities ?? []).join(", ") || "–" },
      { title: "Backend", text: (each) => each.servingBackend || (each.backend ? `${each.backend} (missing)` : "none") },
      { title: "Changed", text: (each) => ago(each.modifyTime) },
      {
        title: "Actions",
        actions: (row) => [
          this.#button(row, "Load", (item) => this.#load(item.name)),
          this.#button(row, "Delete", (item) => this.#delete(item.name)),
        ],
      },
    ];
    return new LiveTable("Installed models", columns, {
      key: (each) => each.name,
      empty: "No model is installed. Pull one below, or run “puna demo”.",
    });
  }

  /** Return a button that works on the item of its row. */
  #button(row, label, work) {
    const name = modelName(row.item.name ?? row.item.model.name);
    const run = async () => {
      setText(this.result, "");
      try {
        await work(row.item);
      } catch (error) {
        if (!this.signal.aborted) setText(this.result, `${label} ${name}: ${explain(error)}`);
      }
    };
    return actionButton(label, run, { "aria-label": `${label} ${name}` });
  }

  async #load(name) {
    this.announce(`Loading ${modelName(name)}`);
    const { loaded } = await this.api.call(`${SERVICE}/LoadModel`, { name }, { signal: this.signal });
    await this.refresh();
    this.announce(`${modelName(loaded.model.name)} is loaded`);
  }

  async #pin(name, wanted) {
    const request = { name, pinned: wanted };
    const { wasLoaded, pinned = false } = await this.api.call(`${SERVICE}/PinModel`, request, { signal: this.signal });
    await this.refresh();
    if (!wasLoaded) throw new Error("the model is no longer loaded");
    if (pinned && !wanted) throw new Error("the configuration of the server pins it");
    this.announce(`${modelName(name)} is ${pinned ? "pinned" : "no longer pinned"}`);
  }

  async #unload(name) {
    await this.api.call(`${SERVICE}/UnloadModel`, { name }, { signal: this.signal });
    await this.refresh();
    this.announce(`${modelName(name)} is unloaded`);
    this.#keepFocus(this.loadedPanel);
  }

  async #delete(name) {
    const text = `${modelName(name)} and the files that no other model uses are removed from this server's disk.`;
    const question = { title: `Delete ${modelName(name)}?`, text, yes: "Delete", signal: this.signal };
    if (!(await ask(question))) return;
    await this.api.call(`${SERVICE}/DeleteModel`, { name }, { signal: this.signal });
    await this.refresh();
    this.announce(`${modelName(name)} is deleted`);
    this.#keepFocus(this.installedPanel);
  }

  /** Move the focus to a panel's heading if the row with the focus is gone. */
  #keepFocus(section) {
    if (document.activeElement === document.body) section.querySelector("h2").focus();
  }
}

function memory({ sizeBytes, vramBytes }) {
  return Number(vramBytes) ? `${bytes(sizeBytes)}, ${bytes(vramBytes)} of it GPU` : bytes(sizeBytes);
}

function unloadsIn({ expireTime, pinned }) {
  if (pinned) return "never, it is pinned";
  const left = (Date.parse(expireTime) - Date.now()) / 1000;
  return left > FOREVER ? "never" : seconds(Math.max(left, 0));
}
