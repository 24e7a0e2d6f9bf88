import assert from "node:assert/strict";
import { test } from "node:test";

import { call, patience, plain, within } from "./client.js";
import { ChatRequest, ChatServiceClient } from "./gen/puna/v1/chat.js";
import { EmbedRequest, EmbedServiceClient, VectorEncoding } from "./gen/puna/v1/embed.js";
import { ChatMessage, Tool } from "./gen/puna/v1/message.js";
import { RequestOptions, ThinkingLevel } from "./gen/puna/v1/options.js";
import { type Finish, FinishReason } from "./gen/puna/v1/usage.js";

/** Makes answers the same each time. */
const exact = RequestOptions.fromPartial({ sampling: { temperature: 0 }, thinking: ThinkingLevel.THINKING_LEVEL_OFF });
const weather = Tool.fromPartial({
  name: "get_weather",
  description: "Get the weather of a city",
  parametersJson: JSON.stringify({ type: "object", properties: { city: { type: "string" } }, required: ["city"] }),
});

/** Streams a chat and joins its deltas to a message. */
async function answer(client: ChatServiceClient, messages: ChatMessage[]): Promise<{ message: ChatMessage; finish: Finish }> {
  const request = ChatRequest.fromPartial({ model: "llamita", messages, tools: [weather], options: exact, toolCallDeltas: true });
  const message = ChatMessage.fromPartial({ role: "assistant" });
  const written = new Map<number, string>();
  let finish: Finish | undefined;
  for await (const part of client.streamChat(request, within(patience))) {
    for (const delta of part.deltas) {
      message.content += delta.content;
      message.toolCalls.push(...delta.toolCalls);
      for (const { index, argumentsJson } of delta.toolCallDeltas) {
        written.set(index, (written.get(index) ?? "") + argumentsJson);
      }
    }
    finish = part.done?.finish ?? finish;
  }
  assert(finish);
  for (const { index, argumentsJson } of message.toolCalls) {
    assert.deepEqual(JSON.parse(written.get(index) ?? ""), JSON.parse(argumentsJson), "the deltas of a call make the call");
  }
  return { message, finish };
}

test("a streamed chat with a tool call and the tool's result", async () => {
  const client = plain(ChatServiceClient);
  const messages = [ChatMessage.fromPartial({ role: "user", content: "What is the weather in Oslo?" })];
  const asked = await answer(client, messages);
  assert.equal(asked.finish.reason, FinishReason.FINISH_REASON_TOOL_CALLS);
  const [toolCall, ...others] = asked.message.toolCalls;
  assert(toolCall && others.length === 0);
  assert.equal(toolCall.name, "get_weather");
  assert.deepEqual(JSON.parse(toolCall.argumentsJson), { city: "Oslo" });
  messages.push(
    asked.message,
    ChatMessage.fromPartial({ role: "tool", toolName: "get_weather", toolCallId: toolCall.id, content: "18 degrees and sunny" }),
  );
  const told = await answer(client, messages);
  assert.match(told.message.content, /18 degrees/);
  assert.equal(told.finish.reason, FinishReason.FINISH_REASON_STOP);
  assert(told.finish.usage && told.finish.usage.promptTokens > 0 && told.finish.usage.outputTokens > 0);
});

test("structured output", async () => {
  const client = plain(ChatServiceClient);
  const schema = {
    type: "object",
    properties: { name: { type: "string" }, age: { type: "integer" } },
    required: ["name", "age"],
  };
  const request = ChatRequest.fromPartial({
    model: "llamita",
    messages: [{ role: "user", content: "Ada is 36 years old. Answer in JSON." }],
    options: {
      ...exact,
      sampling: { temperature: 0, maxOutputTokens: 200 },
      constraint: { kind: { $case: "jsonSchema", value: JSON.stringify(schema) } },
    },
  });
  const { message } = await call(client, client.chat, request);
  const person = JSON.parse(message?.content ?? "");
  assert.equal(typeof person.name, "string");
  assert(Number.isInteger(person.age));
});

test("packed embeddings", async () => {
  const client = plain(EmbedServiceClient);
  const embed = (encoding: VectorEncoding) => {
    const inputs = ["Why is the sky blue?", "A herd of llamas"];
    return call(client, client.embed, EmbedRequest.fromPartial({ model: "llamita-embed", inputs, encoding }));
  };
  const packed = await embed(VectorEncoding.VECTOR_ENCODING_FLOAT32_LE);
  const listed = await embed(VectorEncoding.VECTOR_ENCODING_FLOAT_LIST);
  assert.equal(packed.vectors.length, 2);
  packed.vectors.forEach((vector, index) => {
    const view = new DataView(vector.packed.buffer, vector.packed.byteOffset, vector.packed.byteLength);
    const values = Array.from({ length: view.byteLength / 4 }, (_, at) => view.getFloat32(at * 4, true));
    assert.equal(values.length, 128);
    assert(Math.abs(values.reduce((sum, value) => sum + value * value, 0) - 1) < 1e-4);
    assert.deepEqual(values, listed.vectors[index]?.values);
  });
});
