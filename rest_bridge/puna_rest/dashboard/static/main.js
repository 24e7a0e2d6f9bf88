/** The frame: shows the page that the address names, and holds the key, the theme and what screen readers hear. */

import { Api } from "./api.js";
import { h } from "./dom.js";
import { PAGES } from "./pages.js";

const THEME = "puna.theme";
const element = (id) => document.getElementById(id);
const content = element("content");
const api = new Api();
let leaving = new AbortController();
let shown = "";

/** Have screen readers say a text. */
function announce(text) {
  const line = h("p", {}, text);
  element("announcements").append(line);
  setTimeout(() => line.remove(), 10_000);
}

/** Return the name of the page in the address and what follows it, or null for an address of something else. */
function route() {
  if (location.hash && !location.hash.startsWith("#/")) return null;
  const [name, ...rest] = location.hash.slice(2).split("/");
  return { name: PAGES.some((each) => each.name === name) ? name : PAGES[0].name, params: rest.map(decodeURIComponent) };
}

async function show() {
  const target = route();
  if (target === null) return;
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const page = PAGES.find((each) => each.name === target.name);
  for (const link of element("nav").querySelectorAll("a")) {
    if (link.hash === `#/${page.name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const root = h("div", { class: "page", id: `page-${page.name}` });
  content.replaceChildren(root);
  try {
    const { title, mount } = await page.load();
    if (signal.aborted) return;
    document.title = `${title} · Puna`;
    // The first page is announced by the browser.
    if (shown && shown !== page.name) {
      announce(title);
      content.focus();
    }
    shown = page.name;
    root.append(h("h1", { class: "visually-hidden" }, title));
    await mount(root, { api, signal, announce, params: target.params });
  } catch (error) {
    if (signal.aborted) return;
    root.append(h("p", { class: "error", role: "alert" }, `The page cannot be shown: ${error.message}`));
  }
}

function showKey() {
  element("key").textContent = api.key ? "Key: set" : "Key…";
}

function askForKey() {
  const dialog = element("key-dialog");
  if (dialog.open) return;
  element("key-value").value = api.key;
  dialog.returnValue = "cancel";
  dialog.showModal();
}

element("key-dialog").addEventListener("close", () => {
  const answer = element("key-dialog").returnValue;
  const typed = element("key-value").value.trim();
  element("key-value").value = "";
  if (answer !== "use" && answer !== "forget") return;
  api.key = answer === "use" ? typed : "";
  showKey();
  describe();
  show();
});
element("key-form").addEventListener("keydown", (event) => {
  // Enter in the field means the last button, not the first one.
  if (event.key !== "Enter" || event.target.tagName !== "INPUT") return;
  event.preventDefault();
  element("key-dialog").close("use");
});
element("key").addEventListener("click", askForKey);

/** A page asks often, so the question appears once for each key; the button opens it again. */
let refused = null;
api.addEventListener("unauthenticated", () => {
  if (refused === api.key) return;
  refused = api.key;
  announce(api.key ? "The server does not know this key." : "The server asks for an API key.");
  askForKey();
});

function setTheme(value) {
  if (value) document.documentElement.dataset.theme = value;
  else delete document.documentElement.dataset.theme;
}

element("theme").value = localStorage.getItem(THEME) ?? "";
setTheme(element("theme").value);
element("theme").addEventListener("change", (event) => {
  localStorage.setItem(THEME, event.target.value);
  setTheme(event.target.value);
});

element("skip").addEventListener("click", (event) => {
  event.preventDefault();
  content.focus();
});

/** Show the versions of the server and its backends. */
async function describe() {
  try {
    const info = await api.call("puna.v1.ServerService/GetServerInfo");
    const backends = (info.backends ?? []).filter((each) => !each.error).map((each) => each.name);
    element("footer").textContent = `Puna ${info.version} · Ollama's API ${info.ollamaVersion} · backends: ${backends.join(", ")}`;
  } catch {
    element("footer").textContent = "";
  }
}

element("nav").append(h("ul", {}, PAGES.map(({ name, label }) => h("li", {}, h("a", { href: `#/${name}` }, label)))));
window.addEventListener("hashchange", show);
showKey();
describe();
show();
