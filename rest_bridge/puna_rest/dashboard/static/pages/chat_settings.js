/** The settings of the chat page: the model and everything that a request says beside its messages. */

import { choice, field, h } from "../dom.js";
import { modelChoice } from "./model_choice.js";

const LEVELS = ["OFF", "ON", "LOW", "MEDIUM", "HIGH", "MAX"];
const THINKING = [["", "model's default"], ...LEVELS.map((level) => [`THINKING_LEVEL_${level}`, level.toLowerCase()])];
const FORMATS = [["", "free text"], ["json", "JSON object"], ["schema", "JSON Schema"], ["regex", "regular expression"]];
const EXAMPLES = {
  schema: '{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}',
  regex: "yes|no",
};
const TOOLS = '[{"name": "get_weather", "description": "…", "parameters": {"type": "object", "properties": {…}}}]';

export class ChatSettings {
  node;
  /** Promise of the models that can chat, by name. */
  models;
  #fields;
  #byName = new Map();
  /** The field of the schema or expression, with its label. */
  #constraint;
  #badges = h("div", { class: "badges", "aria-label": "Capabilities", role: "group" });
  #onmodel;

  /** @param {(capabilities: string[]) => void} onmodel Gets the capabilities of the model when another one is chosen. */
  constructor(api, signal, onmodel) {
    this.#onmodel = onmodel;
    const { node: model, models } = modelChoice(api, "completion", signal, { onchange: () => this.#showModel() });
    const number = (inputMode, placeholder) => h("input", { inputMode, placeholder, autocomplete: "off" });
    this.#fields = {
      model,
      system: h("textarea", { rows: 2 }),
      thinking: choice(THINKING),
      temperature: number("decimal", "model's default"),
      seed: number("numeric", "random"),
      contextLength: number("numeric", "model's default"),
      maxTokens: number("numeric", "no limit"),
      tools: h("textarea", { rows: 5, class: "code", spellcheck: false, placeholder: TOOLS }),
      format: choice(FORMATS, { onchange: () => this.#showFormat() }),
      constraint: h("textarea", { rows: 5, class: "code", spellcheck: false }),
    };
    this.models = models.then((found) => {
      this.#byName = found;
      this.#showModel();
      return found;
    });
    this.node = this.#layout();
    this.#showFormat();
  }

  /** The values of all fields. */
  get values() {
    return Object.fromEntries(Object.entries(this.#fields).map(([name, node]) => [name, node.value]));
  }

  #layout() {
    const { model, system, thinking, temperature, seed, contextLength, maxTokens, tools, format, constraint } = this.#fields;
    this.#constraint = field("Schema or expression", constraint, "The server makes the model keep to it.");
    return h("section", { class: "chat-settings panel", "aria-label": "Settings" },
      h("h2", {}, "Settings"), field("Model", model), this.#badges, field("System message", system), field("Thinking", thinking),
      field("Answer", format), this.#constraint,
      h("details", {}, h("summary", {}, "Tools"),
        field("Tools", tools, "A JSON list. The page shows the calls, and you type the results.")),
      h("details", {}, h("summary", {}, "Options"), field("Temperature", temperature), field("Seed", seed),
        field("Most output tokens", maxTokens),
        field("Context length", contextLength, "Another length loads the model again.")));
  }

  #showModel() {
    const capabilities = this.#byName.get(this.#fields.model.value)?.capabilities ?? [];
    this.#badges.replaceChildren(...capabilities.map((each) => h("span", { class: "badge" }, each)));
    this.#onmodel(capabilities);
  }

  #showFormat() {
    const format = this.#fields.format.value;
    this.#constraint.hidden = !(format in EXAMPLES);
    this.#fields.constraint.placeholder = EXAMPLES[format] ?? "";
  }
}
