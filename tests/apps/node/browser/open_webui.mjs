// Chats in Open WebUI as a user does. Arguments: the browser, Open WebUI's address, the path of a note, a text that the
// note ends with, and the folder for screenshots.
import { chromium } from "playwright-core";

const [executablePath, url, note, ending, folder] = process.argv.slice(2);
// The browser itself must not look for updates or accounts.
const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"];
const closed = ["--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"];
const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", ...quiet, ...closed];

// Starts to record each text that the last answer shows.
function record() {
  window.shown = [];
  new MutationObserver(() => {
    const text = [...document.querySelectorAll(".chat-assistant")].at(-1)?.innerText.trim() ?? "";
    if (text !== window.shown.at(-1)) window.shown.push(text);
  }).observe(document.body, { subtree: true, childList: true, characterData: true });
}

const browser = await chromium.launch({ executablePath, args });
const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
page.setDefaultTimeout(90_000);
const hosts = new Set();
page.on("request", (request) => {
  const address = new URL(request.url());
  if (address.protocol.startsWith("http")) hosts.add(address.hostname);
});

async function ask(text, ending, name) {
  await page.locator("#chat-input").click();
  await page.keyboard.type(text);
  await page.evaluate(record);
  await page.keyboard.press("Enter");
  await page.locator(".chat-assistant").last().getByText(ending).waitFor();
  const shown = await page.evaluate(() => window.shown);
  await page.screenshot({ path: `${folder}/${name}.png` });
  return shown;
}

try {
  // Without a name, Open WebUI takes the model that the server lists first.
  await page.goto(`${url}/?models=stub:latest`);
  await page.getByText("Okay, Let's Go!").click();
  const chat = await ask("Say hello.", "five.", "chat");
  const loop = await ask(`Please CALL read_note path=${note}`, ending, "tool-loop");
  await page.goto(`${url}/?models=llamita:latest`);
  const thinking = await ask("What is 3 + 4?", "3 + 4 = 7.", "thinking");
  process.stdout.write(JSON.stringify({ chat, loop, thinking, hosts: [...hosts] }));
} catch (error) {
  await page.screenshot({ path: `${folder}/failure.png` });
  throw error;
} finally {
  await browser.close();
}
