/** A table whose rows change in place, so that the focus and a screen reader stay where they are. */

import { h, setText } from "./dom.js";

/**
 * A column is {title, text(item), number, actions(row)}: `text` returns the text of a cell; `actions` instead returns the
 * controls of a row, once when the row is made, and reads the current item from `row.item`; `refresh(row)` fits them to
 * each new item. `number` aligns to the right.
 * The first column heads the row.
 */
export class LiveTable {
  #rows = new Map();

  /** `key` returns what identifies an item; `empty` is the text in place of a table without rows. Before the first update there is neither. */
  constructor(caption, columns, { key, empty }) {
    this.columns = columns;
    this.key = key;
    const headers = columns.map((each) => h("th", { scope: "col", class: style(each) }, each.title));
    this.body = h("tbody");
    const head = h("thead", {}, h("tr", {}, headers));
    this.table = h("table", { class: "table" }, h("caption", { class: "visually-hidden" }, caption), head, this.body);
    this.scroll = h("div", { class: "scroll", role: "region", "aria-label": caption, tabIndex: 0, hidden: true }, this.table);
    this.empty = h("p", { class: "muted", hidden: true }, empty);
    this.node = h("div", {}, this.scroll, this.empty);
  }

  /** Show these items in their order. */
  update(items) {
    const wanted = new Set(items.map(this.key));
    for (const [key, row] of this.#rows) {
      if (wanted.has(key)) continue;
      row.node.remove();
      this.#rows.delete(key);
    }
    items.forEach((item, at) => {
      const row = this.#rows.get(this.key(item)) ?? this.#make(item);
      row.item = item;
      row.cells.forEach((cell, index) => cell && setText(cell, this.columns[index].text(item)));
      this.columns.forEach((column) => column.refresh?.(row));
      // A row that is moved would lose the focus, so only rows at a wrong place are.
      if (this.body.children[at] !== row.node) this.body.insertBefore(row.node, this.body.children[at] ?? null);
    });
    this.scroll.hidden = !items.length;
    this.empty.hidden = items.length > 0;
  }

  #make(item) {
    const row = { item, node: h("tr"), cells: [] };
    this.columns.forEach((column, at) => {
      const properties = { class: style(column) };
      const cell = at ? h("td", properties) : h("th", { ...properties, scope: "row" });
      row.node.append(cell);
      if (column.actions) cell.append(h("div", { class: "actions" }, column.actions(row)));
      row.cells.push(column.actions ? null : cell);
    });
    this.#rows.set(this.key(item), row);
    return row;
  }
}

function style(column) {
  return column.number || column.actions ? "number" : undefined;
}
