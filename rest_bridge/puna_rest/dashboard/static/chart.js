/** A line chart over time, drawn in SVG, with the values as a table for readers who do not see it. */

import { h, setText, svg } from "./dom.js";
import { clock } from "./text.js";

const WIDTH = 600;
const HEIGHT = 190;
const LEFT = 62;
const RIGHT = 590;
const TOP = 10;
const BOTTOM = 165;
const GRID = 4;
const TABLE_ROWS = 10;

export class Chart {
  /**
   * `series` are the names of the lines; `format` writes a value; `window` is the time that is shown, in milliseconds;
   * `bridge`: values without a neighbour are joined, for values that exist only while requests end; `least` is the
   * smallest value at the upper end of the axis.
   */
  constructor({ title, series, format, window, bridge = false, least = 1, hint = "" }) {
    Object.assign(this, { title, series, format, window, bridge, least });
    this.now = h("p", { class: "chart-now" });
    this.lines = svg("g");
    this.picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" }, this.lines);
    this.rows = h("tbody");
    this.details = h("details", { ontoggle: () => this.#fillTable() }, h("summary", {}, "Values"), this.#table());
    const heading = h("h2", {}, title);
    const names = series.map((name, at) => h("li", { class: `series-${at + 1}` }, name));
    const legend = series.length > 1 && h("ul", { class: "legend" }, names);
    const text = hint && h("p", { class: "muted" }, hint);
    const parts = [heading, this.now, this.picture, legend, text, this.details];
    this.node = h("section", { class: "panel chart", "aria-label": title }, parts);
    this.update([], Date.now());
  }

  /** Draw points: objects with `time` in milliseconds and `values`, one for each series, each null if there is none. */
  update(points, now) {
    this.points = points.filter((each) => each.time >= now - this.window);
    const values = this.points.flatMap((each) => each.values).filter((each) => each !== null);
    const highest = nice(Math.max(this.least, ...values));
    const x = (time) => RIGHT - ((now - time) / this.window) * (RIGHT - LEFT);
    const y = (value) => BOTTOM - (value / highest) * (BOTTOM - TOP);
    this.lines.replaceChildren(...this.#axes(highest, y), ...this.series.flatMap((_, at) => this.#line(at, x, y)));
    const latest = this.series.map((_, at) => this.points.findLast((each) => each.values[at] !== null)?.values[at]);
    const words = latest.map((value) => (value === undefined ? "–" : this.format(value)));
    setText(this.now, words.join(" / "));
    this.picture.setAttribute("aria-label", this.#describe(latest, values));
    if (this.details.open) this.#fillTable();
  }

  #describe(latest, values) {
    if (!values.length) return `${this.title}: no values yet`;
    const now = this.series.map((name, at) => {
      const value = latest[at] === undefined ? "none" : this.format(latest[at]);
      return this.series.length > 1 ? `${name} ${value}` : value;
    });
    return `${this.title}: ${now.join(", ")}; highest ${this.format(Math.max(...values))}`;
  }

  #axes(highest, y) {
    const found = [];
    for (let step = 0; step <= GRID; step += 1) {
      const value = (highest * step) / GRID;
      found.push(svg("line", { class: "grid", x1: LEFT, x2: RIGHT, y1: y(value), y2: y(value) }));
      if (step % 2 === 0) found.push(svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, this.format(value)));
    }
    const minutes = Math.round(this.window / 60_000);
    found.push(svg("text", { x: LEFT, y: HEIGHT - 6 }, `${minutes} min ago`));
    found.push(svg("text", { x: RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, "now"));
    return found;
  }

  #line(at, x, y) {
    const style = `series-${at + 1}`;
    let path = "";
    let joined = false;
    const dots = [];
    for (const { time, values } of this.points) {
      const value = values[at];
      if (value === null) {
        joined &&= this.bridge;
        continue;
      }
      path += `${joined ? "L" : "M"}${x(time).toFixed(1)} ${y(value).toFixed(1)}`;
      if (this.bridge) dots.push(svg("circle", { class: style, cx: x(time).toFixed(1), cy: y(value).toFixed(1), r: 3 }));
      joined = true;
    }
    return [...(path ? [svg("path", { class: style, d: path })] : []), ...dots];
  }

  #table() {
    const headers = ["Time", ...this.series].map((name) => h("th", { scope: "col" }, name));
    return h("table", { class: "table" }, h("caption", { class: "visually-hidden" }, this.title), h("thead", {}, h("tr", {}, headers)), this.rows);
  }

  #fillTable() {
    const latest = this.points.filter((each) => each.values.some((value) => value !== null)).slice(-TABLE_ROWS);
    this.rows.replaceChildren(
      ...latest.reverse().map(({ time, values }) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, clock(time)),
          values.map((value) => h("td", {}, value === null ? "–" : this.format(value))),
        ),
      ),
    );
  }
}

/** Return the next number above `value` that has one digit and is 1 or even, times a power of ten. */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((each) => each * power).find((each) => each >= value * 0.999999);
}
