// The Vercel AI SDK with its providers: arguments are the server's address and the path of a note.
import { readFileSync } from "node:fs";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { createOllama } from "ai-sdk-ollama";
import { createOllama as createOllamaV2 } from "ollama-ai-provider-v2";
import { z } from "zod";

const [url, note] = process.argv.slice(2);
const ollama = createOllama({ baseURL: url });
const anthropic = createAnthropic({ baseURL: `${url}/v1`, apiKey: "x" });
const models = {
  "ai-sdk-ollama": ollama("stub"),
  "ollama-ai-provider-v2": createOllamaV2({ baseURL: `${url}/api` })("stub"),
  "openai-compatible": createOpenAICompatible({ name: "puna", baseURL: `${url}/v1` })("stub"),
  openai: createOpenAI({ baseURL: `${url}/v1`, apiKey: "x" })("stub"),
  anthropic: anthropic("stub"),
};

async function loop(model, run) {
  const ran = [];
  const readNote = tool({
    description: "Read a note.",
    inputSchema: z.object({ path: z.string() }),
    execute: async ({ path }) => (ran.push(path), readFileSync(path, "utf8")),
  });
  const answer = await run({
    model,
    tools: { read_note: readNote },
    prompt: `Please CALL read_note path=${note}`,
    stopWhen: stepCountIs(3),
  });
  return { loop: await answer.text, ran, steps: (await answer.steps).length };
}

async function drive(model) {
  const prompt = "Say hello.";
  const chat = await generateText({ model, prompt });
  const deltas = [];
  for await (const delta of streamText({ model, prompt }).textStream) deltas.push(delta);
  const streamed = async (asked) => {
    const answer = streamText(asked);
    await answer.consumeStream();
    return answer;
  };
  return {
    chat: chat.text,
    tokens: chat.usage.outputTokens,
    deltas,
    whole: await loop(model, generateText),
    streamed: await loop(model, streamed),
  };
}

async function think(model, providerOptions) {
  const answer = await generateText({ model, providerOptions, prompt: "What is 3 + 4?" });
  return { text: answer.text, reasoning: answer.reasoningText };
}

const found = {};
for (const [name, model] of Object.entries(models)) found[name] = await drive(model);
found.thinking = {
  anthropic: await think(anthropic("llamita"), { anthropic: { thinking: { type: "enabled", budgetTokens: 1024 } } }),
  ollama: await think(ollama("llamita", { think: true })),
};
process.stdout.write(JSON.stringify(found));
