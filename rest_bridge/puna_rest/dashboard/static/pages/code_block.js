/** Blocks of text as it is. */

import { h } from "../dom.js";

/** Return a block of text that scrolls. It takes the focus, so that the keyboard can scroll it. */
export function codeBlock(label, text) {
  return h("pre", { class: "code-block", tabIndex: 0, role: "group", "aria-label": label }, text);
}
