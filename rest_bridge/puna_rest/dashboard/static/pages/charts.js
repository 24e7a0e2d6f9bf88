/**
 * The charts page: rates, latencies and the cache, and which hosts died and which models were removed.
 *
 * The server has counters and histograms. Each chart shows their differences between two questions. Counters of tokens
 * change when a request ends; the tokens of running requests are added where the key allows to list requests, so that
 * the rate is that of the moment.
 */

import { Chart } from "../chart.js";
import { choice, field, h, panel, setText } from "../dom.js";
import { LiveTable } from "../live_table.js";
import { poll } from "../poll.js";
import { histogram, parse, quantile, total } from "../prometheus.js";
import { count, modelName, percent, seconds } from "../text.js";
import { CAUSES, eventsPanel } from "./events.js";

export const title = "Charts";

const SERVICE = "puna.v1.ServerService";
const EVERY = 2000;
const WINDOW = 5 * 60_000;
const charts = () => ({
  tokens: new Chart({ title: "Output tokens per second", series: ["Tokens/s"], format: count, window: WINDOW, least: 10 }),
  load: new Chart({ title: "Requests", series: ["Running", "Waiting"], format: count, window: WINDOW, least: 4 }),
  first: latency("Time to first token", "Of requests that ended between two points."),
  between: latency("Inter-token latency", "Between two deltas of an answer."),
  hits: new Chart({ title: "Prefix cache hit rate", series: ["Hit rate"], format: percent, window: WINDOW, bridge: true }),
  cache: new Chart({ title: "KV cache use", series: ["In use"], format: percent, window: WINDOW }),
});

/** What was measured while the page was shown. It outlives the page, so that a user who comes back sees it. */
const history = { metrics: [], load: [], requests: true };

/** Show the page. */
export function mount(root, context) {
  new ChartsPage(root, context).start();
}

class ChartsPage {
  constructor(root, context) {
    Object.assign(this, context);
    this.problem = h("p", { class: "error", role: "alert" });
    this.model = choice([["", "All models"]], { onchange: () => this.#draw() });
    this.charts = charts();
    this.charts.cache.node.hidden = true;
    this.deaths = table("Hosts that died", "Ended by", "status", (text) => text, "No host has died.");
    this.removed = table("Models that are no longer loaded", "Reason", "cause", (text) => CAUSES[text] ?? text, "No model was removed.");
    const drawings = h("div", { class: "charts" }, Object.values(this.charts).map((each) => each.node));
    const since = h("p", { class: "muted" }, "Counted since metrics are collected: from the start of a server with metrics, else from the first look at this page.");
    const counts = h("div", { class: "charts" }, panel("Host deaths", this.deaths.node), panel("Removed models", this.removed.node));
    this.events = eventsPanel(context);
    root.append(this.problem, h("div", { class: "toolbar" }, field("Model", this.model)), drawings, counts, since, this.events);
  }

  start() {
    const { signal } = this;
    const problems = new Map();
    const showAs = (name) => (text) => {
      problems.set(name, text);
      setText(this.problem, [...new Set(problems.values())].filter(Boolean).join(" "));
    };
    // A gap where the page was not shown must not become a line.
    const gap = { time: Date.now(), gap: true };
    history.metrics.push(gap);
    history.load.push(gap);
    poll(() => this.#measure(), EVERY, { signal, show: showAs("metrics") });
    poll(() => this.#watch(showAs("load")), EVERY, { signal, show: showAs("load") });
    this.#draw();
  }

  async #measure() {
    const { signal } = this;
    const [answer, running] = await Promise.all([
      this.api.call(`${SERVICE}/GetMetrics`, {}, { signal }),
      this.#runningTokens(),
    ]);
    history.metrics.push({ time: Date.now(), metrics: parse(answer.text ?? ""), running });
    trim(history.metrics);
    this.#draw();
  }

  /** Return the output tokens of the running requests by model. Without the permission there are none. */
  async #runningTokens() {
    const tokens = new Map();
    if (!history.requests) return tokens;
    try {
      const requests = await this.api.list(`${SERVICE}/ListRequests`, {}, "requests", { signal: this.signal });
      for (const each of requests) {
        const name = modelName(each.model);
        tokens.set(name, (tokens.get(name) ?? 0) + (each.outputTokens ?? 0));
      }
    } catch (error) {
      if (error.code !== "permission_denied") throw error;
      history.requests = false;
    }
    return tokens;
  }

  async #watch(show) {
    for await (const load of this.api.stream(`${SERVICE}/WatchLoad`, { interval: "1s" }, { signal: this.signal })) {
      show("");
      history.load.push({ time: Date.now(), models: load.models ?? [], pending: load.pendingRequests ?? 0 });
      trim(history.load);
      if (!document.hidden) this.#draw();
    }
  }

  #draw() {
    const now = Date.now();
    const model = this.model.value;
    for (const [name, points] of Object.entries(derive(model))) this.charts[name].update(points, now);
    this.charts.load.update(history.load.map((each) => loadPoint(each, model)), now);
    const latest = history.metrics.findLast((each) => !each.gap)?.metrics;
    if (!latest) return;
    this.charts.cache.node.hidden = !latest.has("kv_cache_usage_perc");
    this.deaths.update(this.#counted(latest, "host_deaths_total", "status", model));
    this.removed.update(this.#counted(latest, "models_removed_total", "cause", model));
    this.#offer(latest);
  }

  #counted(metrics, name, label, model) {
    const samples = (metrics.get(name) ?? []).filter(({ labels }) => !model || labels.model_name === model);
    const rows = samples.map(({ labels, value }) => ({ model: labels.model_name, what: labels[label], value }));
    if (name === "host_deaths_total") this.#announceDeaths(rows);
    return rows.sort((left, right) => right.value - left.value);
  }

  #announceDeaths(rows) {
    const deaths = rows.reduce((sum, { value }) => sum + value, 0);
    // The panel of events announces each death, where there is one.
    if (this.events.hidden && this.seenDeaths !== undefined && deaths > this.seenDeaths) {
      this.announce(rows.map(({ model, what }) => `${model}: its host died: ${what}`).join("; "));
    }
    this.seenDeaths = deaths;
  }

  /** Offer each model that has metrics. */
  #offer(metrics) {
    const names = new Set([...metrics.values()].flat().map(({ labels }) => labels.model_name).filter(Boolean));
    for (const option of this.model.options) names.delete(option.value);
    for (const name of [...names].sort()) this.model.append(h("option", { value: name }, name));
  }
}

/** Return the points of the charts that come from metrics. */
function derive(model) {
  const found = { tokens: [], first: [], between: [], hits: [], cache: [] };
  history.metrics.forEach((after, at) => {
    const before = history.metrics[at - 1];
    const { time } = after;
    if (after.gap || !before || before.gap) {
      for (const points of Object.values(found)) points.push({ time, values: [null, null] });
      return;
    }
    const grown = (name) => Math.max(total(after.metrics, name, model) - total(before.metrics, name, model), 0);
    const quantiles = (name) => {
      const [earlier, later] = [before, after].map(({ metrics }) => histogram(metrics, name, model));
      return { time, values: [quantile(earlier, later, 0.5), quantile(earlier, later, 0.95)] };
    };
    const written = tokensOf(after, model) - tokensOf(before, model);
    found.tokens.push({ time, values: [(Math.max(written, 0) / (time - before.time)) * 1000] });
    found.first.push(quantiles("time_to_first_token_seconds"));
    found.between.push(quantiles("inter_token_latency_seconds"));
    const asked = grown("prefix_cache_queries_total");
    found.hits.push({ time, values: [asked ? Math.min(grown("prefix_cache_hits_total") / asked, 1) : null] });
    found.cache.push({ time, values: [cacheUse(after.metrics, model)] });
  });
  return found;
}

/** Return the output tokens of ended and running requests. */
function tokensOf({ metrics, running }, model) {
  const counts = model ? [running.get(model) ?? 0] : running.values();
  return [...counts].reduce((sum, each) => sum + each, total(metrics, "generation_tokens_total", model));
}

/** Return the share of the KV cache that is in use: of a model, or of the fullest. */
function cacheUse(metrics, model) {
  const samples = (metrics.get("kv_cache_usage_perc") ?? []).filter(({ labels }) => !model || labels.model_name === model);
  return samples.length ? Math.max(...samples.map(({ value }) => value)) : null;
}

function loadPoint(load, model) {
  if (load.gap) return { time: load.time, values: [null, null] };
  const models = load.models.filter((each) => !model || modelName(each.model) === model);
  const sum = (name) => models.reduce((all, each) => all + (each[name] ?? 0), 0);
  return { time: load.time, values: [sum("activeRequests"), sum("queuedRequests") + (model ? 0 : load.pending)] };
}

function latency(name, hint) {
  return new Chart({ title: name, series: ["Median", "95th percentile"], format: seconds, window: WINDOW, bridge: true, least: 0.001, hint });
}

function table(caption, what, name, text, empty) {
  const columns = [
    { title: "Model", text: (each) => each.model || "–" },
    { title: what, text: (each) => text(each.what) },
    { title: "Count", number: true, text: (each) => count(each.value) },
  ];
  return new LiveTable(caption, columns, { key: (each) => `${each.model} ${each.what}`, empty });
}

function trim(points) {
  const oldest = Date.now() - WINDOW;
  while (points.length && points[0].time < oldest) points.shift();
}
