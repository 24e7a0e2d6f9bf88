/** JSON as text: indented without a change of its numbers, and errors that say where the mistake is. */

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

/**
 * Return JSON text with a line for each value. Numbers and strings keep their digits and escapes, which a round trip
 * through JSON.parse would not guarantee for integers above 2^53.
 * @returns {string | null} null: the text is no JSON.
 */
export function indented(text) {
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  let depth = 0;
  let out = "";
  let last = "";
  const line = () => `\n${"  ".repeat(depth)}`;
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === "}" || token === "]") {
      depth -= 1;
      out += last === "{" || last === "[" ? token : line() + token;
    } else {
      if (last === "{" || last === "[" || last === ",") out += line();
      out += token === ":" ? ": " : token;
      if (token === "{" || token === "[") depth += 1;
    }
    last = token;
  }
  return out;
}

/**
 * Parse what a user typed into the field `name`. Empty text gives undefined.
 * @throws {Error} The text names the field.
 */
export function parsed(text, name) {
  if (!text.trim()) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${name}: ${error.message}`, { cause: error });
  }
}
