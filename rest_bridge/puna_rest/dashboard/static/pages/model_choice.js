/** A list of the models that have a capability. */

import { explain } from "../api.js";
import { choice, h } from "../dom.js";
import { modelName } from "../text.js";

/**
 * Return the element, and a promise of its models by name. The promise fails with an Error whose text is for people.
 * @param {string} capability Such as "completion" or "embedding".
 */
export function modelChoice(api, capability, signal, properties = {}) {
  const node = choice([], properties);
  return { node, models: fill(node, api, capability, signal) };
}

async function fill(node, api, capability, signal) {
  let models;
  try {
    models = await api.list("puna.v1.ModelsService/ListModels", {}, "models", { signal });
  } catch (error) {
    throw new Error(`The models cannot be listed. ${explain(error)}`, { cause: error });
  }
  const able = models.filter((each) => each.capabilities?.includes(capability));
  node.append(...able.map(({ name }) => h("option", { value: name }, modelName(name))));
  return new Map(able.map((each) => [each.name, each]));
}
