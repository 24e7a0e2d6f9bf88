// The ollama package of npm. Prints as JSON what each step found, as ../scripts/steps.py does.

import { Ollama } from "ollama";

const host = process.argv[2];
const client = new Ollama({ host });
const france = [{ role: "user", content: "What is the capital of France?" }];
const options = { temperature: 0 };
const person = {
  type: "object",
  properties: { name: { type: "string" }, age: { type: "integer" } },
  required: ["name", "age"],
};
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Tells the weather of a place",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

const collect = async (stream) => {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
};

const steps = {
  generate: () => client.generate({ model: "llamita", prompt: "What is the capital of France?", options }),

  generateStream: async () => {
    const parts = await collect(await client.generate({ model: "scripted", prompt: "a", stream: true }));
    return { pieces: parts.map((part) => part.response), done: parts.map((part) => part.done) };
  },

  chat: async () => {
    const messages = [{ role: "user", content: "Hi! My name is Clara." }];
    const first = await client.chat({ model: "llamita", messages, think: false, options });
    messages.push(first.message, { role: "user", content: "What is my name?" });
    return (await client.chat({ model: "llamita", messages, think: false, options })).message;
  },

  chatStream: async () => {
    const parts = await collect(
      await client.chat({ model: "llamita", messages: france, think: false, stream: true, options }),
    );
    return parts.map((part) => part.message.content);
  },

  thinking: async () =>
    (await client.chat({ model: "llamita", messages: france, think: true, options })).message,

  tools: async () => {
    const messages = [{ role: "user", content: "What is the weather in Paris?" }];
    const ask = () => client.chat({ model: "llamita", messages, tools: [weather], think: false, options });
    const first = await ask();
    messages.push(first.message, { role: "tool", tool_name: "get_weather", content: "18 degrees and cloudy" });
    return { calls: first.message.tool_calls, answer: (await ask()).message.content };
  },

  format: async () =>
    (
      await client.chat({
        model: "llamita",
        messages: [{ role: "user", content: "Anna is 31 years old. Write JSON with name and age." }],
        format: person,
        think: false,
        options,
      })
    ).message.content,

  embed: () => client.embed({ model: "embedder", input: ["one", "two"] }),

  legacyEmbeddings: () => client.embeddings({ model: "embedder", prompt: "one" }),

  manage: async () => {
    await client.create({ model: "made", from: "scripted", system: "Be brief.", parameters: { seed: 7 } });
    await client.copy({ source: "made", destination: "copied" });
    const shown = await client.show({ model: "copied" });
    const listed = (await client.list()).models.map((model) => model.name);
    const deleted = [await client.delete({ model: "made" }), await client.delete({ model: "copied" })];
    await client.generate({ model: "scripted", prompt: "" });
    const loaded = (await client.ps()).models.map((model) => model.name);
    return { system: shown.system, parameters: shown.parameters, listed, deleted, loaded };
  },

  version: () => client.version(),

  abort: async () => {
    const endless = new Ollama({ host });
    const stream = await endless.generate({ model: "scripted", prompt: "b", raw: true, stream: true });
    try {
      for await (const part of stream) endless.abort();
    } catch (error) {
      return error.name;
    }
  },

  errors: async () => {
    try {
      await client.generate({ model: "nowhere", prompt: "a" });
    } catch (error) {
      return [error.name, error.status_code, error.message];
    }
  },
};

const results = {};
for (const [name, step] of Object.entries(steps)) {
  try {
    results[name] = { found: (await step()) ?? null };
  } catch (error) {
    results[name] = { error: error.stack };
  }
}
console.log(JSON.stringify(results));
