import com.fasterxml.jackson.databind.ObjectMapper;
import dev.langchain4j.agent.tool.Tool;
import dev.langchain4j.model.chat.response.ChatResponse;
import dev.langchain4j.model.ollama.OllamaChatModel;
import dev.langchain4j.model.ollama.OllamaStreamingChatModel;
import dev.langchain4j.service.AiServices;
import dev.langchain4j.service.Result;
import dev.langchain4j.service.TokenStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** LangChain4j, over /api/chat: arguments are the server's address and the path of a note. */
public class Drive {
  interface Assistant {
    Result<String> chat(String text);
  }

  interface StreamingAssistant {
    TokenStream chat(String text);
  }

  static class Notes {
    final List<String> ran = new ArrayList<>();

    @Tool("Read a note.")
    String read_note(String path) throws IOException {
      ran.add(path);
      return Files.readString(Path.of(path));
    }
  }

  static Map<String, Object> streamed(StreamingAssistant assistant, String text) throws Exception {
    List<String> deltas = new ArrayList<>();
    CompletableFuture<ChatResponse> done = new CompletableFuture<>();
    assistant.chat(text)
        .onPartialResponse(deltas::add)
        .onCompleteResponse(done::complete)
        .onError(done::completeExceptionally)
        .start();
    ChatResponse response = done.get(60, TimeUnit.SECONDS);
    return Map.of("deltas", deltas, "text", response.aiMessage().text(), "tokens", response.tokenUsage().outputTokenCount());
  }

  public static void main(String[] arguments) throws Exception {
    String url = arguments[0];
    String call = "Please CALL read_note path=" + arguments[1];
    var model = OllamaChatModel.builder().baseUrl(url).modelName("stub").timeout(Duration.ofSeconds(60)).build();
    var streaming =
        OllamaStreamingChatModel.builder().baseUrl(url).modelName("stub").timeout(Duration.ofSeconds(60)).build();
    Map<String, Object> found = new LinkedHashMap<>();
    var chat = AiServices.create(Assistant.class, model).chat("Say hello.");
    found.put("chat", chat.content());
    found.put("tokens", chat.tokenUsage().outputTokenCount());
    found.put("deltas", streamed(AiServices.create(StreamingAssistant.class, streaming), "Say hello.").get("deltas"));
    Notes whole = new Notes();
    var loop = AiServices.builder(Assistant.class).chatModel(model).tools(whole).build().chat(call);
    found.put("whole", Map.of("loop", loop.content(), "ran", whole.ran));
    Notes inStream = new Notes();
    var assistant = AiServices.builder(StreamingAssistant.class).streamingChatModel(streaming).tools(inStream).build();
    found.put("streamed", Map.of("loop", streamed(assistant, call).get("text"), "ran", inStream.ran));
    System.out.println(new ObjectMapper().writeValueAsString(found));
    System.exit(0);
  }
}
