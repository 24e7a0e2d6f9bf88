/** Builds DOM nodes. Children that are strings become text nodes, never HTML. */

const SVG = "http://www.w3.org/2000/svg";
let fields = 0;

/**
 * Return an element. Properties named "class", "for" or "role", or with a hyphen, are attributes; functions named
 * "onclick" and so on are listeners; others are properties of the element. Children that are empty, undefined, null or
 * false are left out, and arrays are flattened.
 */
export function h(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class" || name === "for" || name === "role" || name.includes("-")) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.flat(Infinity).filter((child) => child || child === 0));
  return node;
}

/** Return an SVG element. All properties are attributes. */
export function svg(tag, properties = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) if (value !== undefined) node.setAttribute(name, value);
  node.append(...children.flat(Infinity));
  return node;
}

/** Return a label above a control, with a hint below it. The label and the hint are tied to the control by ids. */
export function field(label, control, hint) {
  control.id ||= `field-${(fields += 1)}`;
  if (hint) control.setAttribute("aria-describedby", `${control.id}-hint`);
  return h(
    "div",
    { class: "field" },
    h("label", { for: control.id }, label),
    control,
    hint && h("small", { id: `${control.id}-hint`, class: "muted" }, hint),
  );
}

/** Return a list to choose from. `options` are pairs of value and text. */
export function choice(options, properties = {}) {
  return h("select", properties, options.map(([value, text]) => h("option", { value }, text)));
}

/** Set a node's text. A text that is unchanged is not written again, so that screen readers do not repeat it. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Return a button that runs `work` and ignores clicks until it has ended. It is not disabled meanwhile, since a button
 * that is disabled loses the focus.
 */
export function actionButton(text, work, properties = {}) {
  let busy = false;
  const onclick = async () => {
    if (busy) return;
    busy = true;
    button.setAttribute("aria-disabled", "true");
    try {
      await work();
    } finally {
      busy = false;
      button.removeAttribute("aria-disabled");
    }
  };
  const button = h("button", { type: "button", class: "button", onclick, ...properties }, text);
  return button;
}

/** Return a section with a heading. */
export function panel(title, ...children) {
  const heading = h("h2", { tabIndex: -1, id: `panel-${(fields += 1)}` }, title);
  return h("section", { class: "panel", "aria-labelledby": heading.id }, heading, children);
}

/**
 * Ask a question in a dialog and wait for the answer: true if the user chose `yes`.
 * Escape, and the end of `signal`, count as no.
 */
export function ask({ title, text, yes, signal }) {
  const heading = h("h2", { id: `panel-${(fields += 1)}` }, title);
  const form = h(
    "form",
    { method: "dialog" },
    heading,
    h("p", {}, text),
    h(
      "div",
      { class: "toolbar end" },
      h("button", { type: "submit", class: "button", value: "no", autofocus: true }, "Cancel"),
      h("button", { type: "submit", class: "button danger", value: "yes" }, yes),
    ),
  );
  const dialog = h("dialog", { "aria-labelledby": heading.id }, form);
  document.body.append(dialog);
  return new Promise((resolve) => {
    const close = () => dialog.close("no");
    signal?.addEventListener("abort", close);
    dialog.addEventListener("close", () => {
      signal?.removeEventListener("abort", close);
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    dialog.showModal();
  });
}
