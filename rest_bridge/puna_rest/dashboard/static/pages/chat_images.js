/** Images that the next message of the chat page takes along. */

import { h } from "../dom.js";

const TYPES = ["image/png", "image/jpeg", "image/webp"];
const THUMBNAIL_PIXELS = 64;

export class ImageTray {
  node = h("div", { class: "thumbnails" });
  button;
  #input;
  #images = [];
  #usable = false;
  #say;

  /** @param {(text: string) => void} say Shows a sentence. */
  constructor(say) {
    this.#say = say;
    this.#input = h("input", { type: "file", accept: TYPES.join(), multiple: true, hidden: true,
      "aria-label": "Images", onchange: () => this.add(this.#input.files) });
    this.button = h("button", { type: "button", class: "button", onclick: () => this.#input.click() }, "Add images");
    this.node.append(this.#input);
  }

  /** Say whether the model takes images. */
  set usable(value) {
    this.#usable = value;
    this.button.disabled = !value;
    this.button.title = value ? "" : "This model takes no images.";
  }

  get isEmpty() {
    return !this.#images.length;
  }

  /** Add files from a file dialog, the clipboard or a drop. */
  async add(files) {
    for (const file of [...files]) {
      if (!this.#usable) this.#say("This model takes no images.");
      else if (!TYPES.includes(file.type)) this.#say(`${file.name} is no PNG, JPEG or WebP image.`);
      else await this.#add(file);
    }
    this.#input.value = "";
  }

  async #add(file) {
    const image = { media: { data: await base64(file), mimeType: file.type }, picture: await thumbnail(file) };
    const remove = h("button", { type: "button", class: "button", "aria-label": `Remove ${file.name}`, onclick: () => {
      this.#images.splice(this.#images.indexOf(image), 1);
      shown.remove();
      this.button.focus();
    } }, "×");
    const shown = h("span", { class: "thumbnail" }, image.picture, remove);
    this.#images.push(image);
    this.node.append(shown);
  }

  /** Return the images as Media of a message, without removing them. */
  get media() {
    return this.#images.map((each) => each.media);
  }

  /** Remove the images, and return their pictures. */
  take() {
    const pictures = this.#images.map((each) => each.picture);
    this.#images = [];
    this.node.replaceChildren(this.#input);
    return pictures;
  }
}

async function base64(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

/** Return a small picture of a file, or its name if the browser cannot read it. */
async function thumbnail(file) {
  const canvas = h("canvas", { role: "img", "aria-label": file.name });
  try {
    const bitmap = await createImageBitmap(file);
    const scale = THUMBNAIL_PIXELS / Math.max(bitmap.width, bitmap.height);
    canvas.width = Math.max(1, bitmap.width * scale);
    canvas.height = Math.max(1, bitmap.height * scale);
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
  } catch {
    return h("span", {}, file.name);
  }
  return canvas;
}
