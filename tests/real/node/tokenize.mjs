// Prints the token ids of texts by the library that the tokenizers are published for.
// Arguments: a folder with tokenizer.json and tokenizer_config.json, and a file with the texts as a JSON array.
import { readFileSync } from "node:fs";
import { TokenizerLoader } from "@lenml/tokenizers";

const [folder, file] = process.argv.slice(2);
const read = (name) => JSON.parse(readFileSync(name, "utf8"));
const tokenizer = TokenizerLoader.fromPreTrained({
  tokenizerJSON: read(`${folder}/tokenizer.json`),
  tokenizerConfig: read(`${folder}/tokenizer_config.json`),
});
const ids = read(file).map((text) => Array.from(tokenizer.encode(text, { add_special_tokens: false }), Number));
console.log(JSON.stringify(ids));
