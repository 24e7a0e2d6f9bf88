/**
 * The pages, in the order of the navigation. A page has the address `#/NAME`, and what follows as `params`. Its module is
 * loaded when it is first shown, and exports `title` and `mount(root, {api, signal, announce, params})`. `mount` fills
 * the element `root`; `signal` aborts when the page is left; `announce` has screen readers say a text.
 */
export const PAGES = [
  { name: "models", label: "Models", load: () => import("./pages/models.js") },
  { name: "queue", label: "Queue", load: () => import("./pages/queue.js") },
  { name: "requests", label: "Requests", load: () => import("./pages/requests.js") },
  { name: "charts", label: "Charts", load: () => import("./pages/charts.js") },
  { name: "chat", label: "Chat", load: () => import("./pages/chat.js") },
  { name: "embeddings", label: "Embeddings", load: () => import("./pages/embeddings.js") },
  { name: "log", label: "Log", load: () => import("./pages/log.js") },
];
