/** Writes numbers, sizes and times for people. */

const UNITS = ["B", "KB", "MB", "GB", "TB", "PB"];

/** Return a size in bytes with a unit of powers of 1000, as `puna list` prints it; "–" for 0 or none. */
export function bytes(value) {
  let number = Number(value ?? 0);
  if (!number) return "–";
  let unit = 0;
  while (number >= 999.5 && unit < UNITS.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${number < 10 && unit ? number.toFixed(1) : number.toFixed(0)} ${UNITS[unit]}`;
}

/** Return a duration in seconds in the unit that fits, such as "4.2 ms" or "3 min". */
export function seconds(value) {
  if (!value) return "0 ms";
  if (value < 1) return `${(value * 1000).toPrecision(value < 0.1 ? 2 : 3)} ms`;
  if (value < 60) return `${value < 10 && !Number.isInteger(value) ? value.toFixed(1) : Math.round(value)} s`;
  if (value < 3600) return `${Math.round(value / 60)} min`;
  return value < 172_800 ? `${Math.round(value / 3600)} h` : `${Math.round(value / 86_400)} days`;
}

/** Return a number with at most one digit behind the point; groups of digits are separated. */
export function count(value) {
  return Number(value ?? 0).toLocaleString("en", { maximumFractionDigits: 1 });
}

/** Return a share between 0 and 1 as percent. */
export function percent(value) {
  return `${(value * 100).toFixed(value > 0 && value < 0.1 ? 1 : 0)} %`;
}

/** Return how full the KV cache is with the tokens of running requests; "–" if the backend does not tell. */
export function cacheUse({ kvCache }) {
  const total = Number(kvCache?.totalTokens ?? 0);
  return total ? percent(Number(kvCache.activeTokens ?? 0) / total) : "–";
}

/** Return how long ago a timestamp of the API was. */
export function ago(time) {
  return time ? `${seconds(Math.max(Math.round((Date.now() - Date.parse(time)) / 1000), 1))} ago` : "–";
}

/** Return the time of day of a timestamp of the API, to the second unless `options` of Intl.DateTimeFormat say more. */
export function clock(time, options = {}) {
  const parts = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
  return new Date(time).toLocaleTimeString("en", { hourCycle: "h23", ...parts, ...options });
}

/** Return a model's name without the tag that names have by default. */
export function modelName(name = "") {
  return name.endsWith(":latest") ? name.slice(0, -":latest".length) : name;
}
