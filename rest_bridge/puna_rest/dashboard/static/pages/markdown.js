/**
 * Renders the Markdown that models write, by building DOM nodes. Text never becomes HTML.
 *
 * Theory. A text is cut into blocks: fenced code, headings, quotes, lists, rules and paragraphs. A stream changes only
 * the last blocks of a text, so a view keeps the nodes of all blocks whose source is the same as before. Inside a block,
 * a scanner looks for code, strong, emphasis and strikethrough. It reads each character once: a marker that has no
 * closing partner is remembered, so that a line of ten thousand asterisks costs no more than another line. No regular
 * expression here has two ways to match a run of characters, since models also write spaces without an end.
 *
 * Links and images stay text. An answer must not make the browser ask another host, and a link could carry the
 * conversation away with one click.
 */

const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*)$/;
const RULE = /^ {0,3}([-*_])( *\1){2,} *$/;
const QUOTE = /^ {0,3}> ?/;
/** Deeper items are text, which bounds the depth of lists. */
const ITEM = /^( {0,40})([-*+]|\d{1,9}[.)])\s+(.*)$/;
const MARKERS = [
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "del"],
  ["*", "em"],
  ["_", "em"],
];
const DEEPEST = 4;

/** Shows a text that grows, and keeps the nodes of the blocks that no longer change. */
export class MarkdownView {
  #root;
  #blocks = [];

  /** @param {HTMLElement} root Empty element that gets the nodes. */
  constructor(root) {
    this.#root = root;
  }

  /** @param {string} text The whole text so far. */
  update(text) {
    const blocks = cut(text);
    let same = 0;
    while (same < blocks.length && blocks[same].source === this.#blocks[same]?.source) same += 1;
    while (this.#blocks.length > same) this.#blocks.pop().node.remove();
    for (const block of blocks.slice(same)) {
      const node = render(block);
      this.#root.append(node);
      this.#blocks.push({ source: block.source, node });
    }
  }
}

/** Cut a text into blocks. A fence that is not closed yet reaches to the end. */
function cut(text) {
  const blocks = [];
  const lines = text.split("\n");
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const start = at;
    const kind = kindOf(lines[at]);
    at += 1;
    if (kind === "code") {
      const fence = FENCE.exec(lines[start])[1];
      while (at < lines.length && !closes(lines[at], fence)) at += 1;
      at += 1;
    } else if (kind === "list") {
      while (at < lines.length && lines[at].trim() && ["list", "text"].includes(kindOf(lines[at]))) at += 1;
    } else if (kind === "quote" || kind === "text") {
      while (at < lines.length && lines[at].trim() && kindOf(lines[at]) === kind) at += 1;
    }
    const taken = lines.slice(start, at);
    blocks.push({ kind, lines: taken, source: `${kind}\n${taken.join("\n")}` });
  }
  return blocks;
}

function kindOf(line) {
  if (FENCE.test(line)) return "code";
  if (HEADING.test(line)) return "heading";
  if (RULE.test(line)) return "rule";
  if (QUOTE.test(line)) return "quote";
  return ITEM.test(line) ? "list" : "text";
}

function closes(line, fence) {
  const text = line.trim();
  return text.length >= fence.length && text === fence[0].repeat(text.length);
}

function render({ kind, lines }) {
  switch (kind) {
    case "code":
      return codeBlock(lines);
    case "heading": {
      const [, marks, text] = HEADING.exec(lines[0]);
      // The page has the first three levels for itself.
      return withInline(`h${Math.min(marks.length + 3, 6)}`, withoutMarks(text));
    }
    case "rule":
      return document.createElement("hr");
    case "quote":
      return withInline("blockquote", lines.map((line) => line.replace(QUOTE, "")).join("\n"));
    case "list":
      return list(lines);
    default:
      return withInline("p", lines.join("\n"));
  }
}

/** Return the text of a heading without the marks that may close it. */
function withoutMarks(text) {
  const trimmed = text.trim();
  let end = trimmed.length;
  while (trimmed[end - 1] === "#") end -= 1;
  return trimmed.slice(0, end).trimEnd();
}

function codeBlock(lines) {
  const [, fence, info] = FENCE.exec(lines[0]);
  const [language] = info.trim().split(" ", 1);
  const closed = lines.length > 1 && closes(lines.at(-1), fence);
  const code = document.createElement("code");
  code.textContent = lines.slice(1, closed ? -1 : undefined).join("\n");
  const block = document.createElement("pre");
  block.className = "code-block";
  block.tabIndex = 0; // a block that scrolls must be reachable by keyboard
  if (language) block.dataset.language = language;
  block.append(code);
  return block;
}

/** Return a list. Items that are indented more than the first one become lists in the item before them. */
function list(lines) {
  const [, indent, marker] = ITEM.exec(lines[0]);
  const numbered = /\d/.test(marker);
  const node = document.createElement(numbered ? "ol" : "ul");
  const first = Number.parseInt(marker, 10);
  if (numbered && first !== 1) node.start = first;
  let at = 0;
  while (at < lines.length) {
    const text = [ITEM.exec(lines[at])[3]];
    const nested = [];
    for (at += 1; at < lines.length; at += 1) {
      const item = ITEM.exec(lines[at]);
      if (item && item[1].length <= indent.length) break;
      if (item || nested.length) nested.push(lines[at]);
      else text.push(lines[at].trim());
    }
    const entry = withInline("li", text.join("\n"));
    if (nested.length) entry.append(list(nested));
    node.append(entry);
  }
  return node;
}

function withInline(tag, text) {
  const node = document.createElement(tag);
  inline(node, text, 0);
  return node;
}

/** Append the nodes of a line of text to `parent`. */
function inline(parent, text, depth) {
  const unclosed = new Set();
  let plain = 0;
  let at = 0;
  const flush = (end) => {
    if (end > plain) parent.append(text.slice(plain, end));
  };
  while (at < text.length) {
    const found = marked(text, at, unclosed, depth);
    if (!found) {
      at += 1;
      continue;
    }
    flush(at);
    const node = document.createElement(found.tag);
    if (found.tag === "code") node.textContent = found.text;
    else inline(node, found.text, depth + 1);
    parent.append(node);
    at = found.end;
    plain = at;
  }
  flush(text.length);
}

/** Return the marked text that begins at `at`, or undefined. */
function marked(text, at, unclosed, depth) {
  if (text[at] === "`") {
    const ticks = /^`+/.exec(text.slice(at, at + 9))[0];
    const end = closing(text, at + ticks.length, ticks, unclosed);
    return end < 0 ? undefined : { tag: "code", text: text.slice(at + ticks.length, end), end: end + ticks.length };
  }
  if (depth >= DEEPEST) return undefined;
  for (const [marker, tag] of MARKERS) {
    if (!text.startsWith(marker, at)) continue;
    const start = at + marker.length;
    // snake_case and 2 * 3 are no emphasis.
    if (!text[start] || /\s/.test(text[start]) || (marker[0] === "_" && /\w/.test(text[at - 1] ?? " "))) continue;
    const end = closing(text, start + 1, marker, unclosed);
    if (end < 0 || /\s/.test(text[end - 1])) continue;
    if (marker[0] === "_" && /\w/.test(text[end + marker.length] ?? " ")) continue;
    return { tag, text: text.slice(start, end), end: end + marker.length };
  }
  return undefined;
}

function closing(text, from, marker, unclosed) {
  if (unclosed.has(marker)) return -1;
  const end = text.indexOf(marker, from);
  if (end < 0) unclosed.add(marker);
  return end;
}
