package dev.puna.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import dev.puna.v1.ChatMessage;
import dev.puna.v1.ChatRequest;
import dev.puna.v1.ChatServiceGrpc;
import dev.puna.v1.FinishReason;
import dev.puna.v1.OutputConstraint;
import dev.puna.v1.RequestOptions;
import dev.puna.v1.SamplingOptions;
import dev.puna.v1.StreamChatResponse;
import dev.puna.v1.Tool;
import dev.puna.v1.ToolCall;
import dev.puna.v1.ToolCallDelta;
import io.grpc.ManagedChannel;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** Streamed chat with a tool, and structured output. */
class ChatTest {
  private static final RequestOptions GREEDY = RequestOptions.newBuilder()
      .setSampling(SamplingOptions.newBuilder().setTemperature(0))
      .build();
  private static final Tool WEATHER = Tool.newBuilder()
      .setName("get_weather")
      .setDescription("Get the weather of a city")
      .setParametersJson("""
          {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}""")
      .build();

  private final ManagedChannel channel = Servers.connect();

  @AfterEach
  void close() {
    channel.shutdownNow();
  }

  private static ChatMessage user(String text) {
    return ChatMessage.newBuilder().setRole("user").setContent(text).build();
  }

  private record Answer(String text, List<ToolCall> calls, FinishReason reason) {}

  /** Streams an answer; compares its tool calls with what their deltas make. */
  private Answer ask(ChatRequest request) {
    Iterator<StreamChatResponse> parts =
        ChatServiceGrpc.newBlockingStub(channel).withDeadlineAfter(Servers.PATIENCE).streamChat(request);
    var text = new StringBuilder();
    var calls = new ArrayList<ToolCall>();
    var written = new HashMap<Integer, String>();
    while (true) {
      StreamChatResponse part = parts.next();
      part.getDeltasList().forEach(delta -> {
        text.append(delta.getContent());
        calls.addAll(delta.getToolCallsList());
        for (ToolCallDelta fragment : delta.getToolCallDeltasList()) {
          written.merge(fragment.getIndex(), fragment.getArgumentsJson(), String::concat);
        }
      });
      if (part.hasDone()) {
        assertFalse(parts.hasNext(), "a message follows the last one");
        for (ToolCall call : calls) {
          String joined = written.get(call.getIndex());
          assertEquals(JsonParser.parseString(call.getArgumentsJson()), JsonParser.parseString(joined));
        }
        return new Answer(text.toString(), calls, part.getDone().getFinish().getReason());
      }
    }
  }

  @Test
  void aStreamedChatCallsAToolAndTellsItsResult() {
    ChatRequest.Builder request = ChatRequest.newBuilder()
        .setModel("llamita")
        .addMessages(user("What is the weather in Paris?"))
        .addTools(WEATHER)
        .setToolCallDeltas(true)
        .setOptions(GREEDY);
    Answer first = ask(request.build());
    assertEquals(FinishReason.FINISH_REASON_TOOL_CALLS, first.reason());
    assertEquals(1, first.calls().size());
    ToolCall call = first.calls().get(0);
    assertEquals("get_weather", call.getName());
    assertEquals(JsonParser.parseString("{\"city\": \"Paris\"}"), JsonParser.parseString(call.getArgumentsJson()));
    request.addMessages(
        ChatMessage.newBuilder().setRole("assistant").setContent(first.text()).addAllToolCalls(first.calls()));
    request.addMessages(ChatMessage.newBuilder()
        .setRole("tool")
        .setToolName(call.getName())
        .setToolCallId(call.getId())
        .setContent("{\"temperature\": 21, \"sky\": \"sunny\"}"));
    Answer second = ask(request.build());
    assertEquals(List.of(), second.calls());
    assertEquals(FinishReason.FINISH_REASON_STOP, second.reason());
    assertTrue(second.text().contains("21"), second.text());
  }

  @Test
  void structuredOutputHasTheSchema() {
    String schema = """
        {"type": "object", "required": ["capital", "sure"],
         "properties": {"capital": {"enum": ["Rome", "Paris", "Oslo"]}, "sure": {"type": "boolean"}}}""";
    Answer answer = ask(ChatRequest.newBuilder()
        .setModel("llamita")
        .addMessages(user("What is the capital of France?"))
        .setOptions(GREEDY.toBuilder().setConstraint(OutputConstraint.newBuilder().setJsonSchema(schema)))
        .build());
    JsonObject found = JsonParser.parseString(answer.text()).getAsJsonObject();
    assertEquals(2, found.size());
    assertEquals("Paris", found.get("capital").getAsString());
    assertTrue(found.getAsJsonPrimitive("sure").isBoolean());
  }
}
