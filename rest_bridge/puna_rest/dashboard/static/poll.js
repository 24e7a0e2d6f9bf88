/** Asks the server again and again while a page is shown. */

import { explain } from "./api.js";

const SLOWEST = 10_000;

/**
 * Call `work` at once, and again `milliseconds` after each end, until `signal` aborts. `show` gets the text of each error,
 * and an empty text after a success; `words` puts an error into words. Errors make the pauses longer. Nothing is asked while
 * the tab is hidden.
 */
export async function poll(work, milliseconds, { signal, show, words = explain }) {
  let pause = milliseconds;
  while (!signal.aborted) {
    try {
      await work();
      pause = milliseconds;
      show("");
    } catch (error) {
      if (signal.aborted) return;
      pause = Math.min(Math.max(pause * 2, 1000), SLOWEST);
      show(words(error));
    }
    await sleep(pause, signal);
    if (document.hidden) await visible(signal);
  }
}

/** Wait; return early if `signal` aborts. */
export function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

function visible(signal) {
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", resolve, { once: true, signal });
    signal.addEventListener("abort", resolve, { once: true });
  });
}
