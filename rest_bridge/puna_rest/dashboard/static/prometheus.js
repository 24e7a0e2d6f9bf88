/** Reads metrics in the text format of Prometheus. */

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPED = { "\\n": "\n", '\\"': '"', "\\\\": "\\" };

/**
 * Return the samples of each metric by its name: objects with `labels` and `value`. The prefix of a name, which the
 * server's operator chooses, is dropped: "puna:generation_tokens_total" is "generation_tokens_total".
 */
export function parse(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const match = line.startsWith("#") ? null : LINE.exec(line);
    if (!match) continue;
    const name = match[1].slice(match[1].indexOf(":") + 1);
    const labels = {};
    for (const [, key, value] of (match[2] ?? "").matchAll(LABEL)) {
      labels[key] = value.replace(/\\[n"\\]/g, (each) => ESCAPED[each]);
    }
    if (!found.has(name)) found.set(name, []);
    found.get(name).push({ labels, value: Number(match[3].replace("Inf", "Infinity")) });
  }
  return found;
}

/** Return the sum of a metric's samples for a model, or for all models if `model` is empty. */
export function total(metrics, name, model = "") {
  const samples = (metrics.get(name) ?? []).filter(({ labels }) => !model || labels.model_name === model);
  return samples.reduce((sum, { value }) => sum + value, 0);
}

/**
 * Return a histogram for a model, or for all models: pairs of a bound and the number of observations up to it, in the
 * order of the bounds.
 */
export function histogram(metrics, name, model = "") {
  const counts = new Map();
  for (const { labels, value } of metrics.get(`${name}_bucket`) ?? []) {
    if (model && labels.model_name !== model) continue;
    const bound = Number(labels.le.replace("Inf", "Infinity"));
    counts.set(bound, (counts.get(bound) ?? 0) + value);
  }
  return [...counts].sort(([left], [right]) => left - right);
}

/**
 * Return a quantile of the observations between two states of a histogram, or null if there are none. Within a bucket
 * they count as evenly spread, as for Prometheus. `share` is between 0 and 1.
 */
export function quantile(before, after, share) {
  const earlier = new Map(before);
  const counts = after.map(([bound, value]) => [bound, Math.max(value - (earlier.get(bound) ?? 0), 0)]);
  const all = counts.at(-1)?.[1] ?? 0;
  if (!all) return null;
  const rank = share * all;
  let low = 0;
  let below = 0;
  for (const [bound, value] of counts) {
    if (value >= rank) return bound === Infinity ? low : low + (bound - low) * ((rank - below) / (value - below || 1));
    low = bound;
    below = value;
  }
  return low;
}
