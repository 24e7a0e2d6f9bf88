package dev.puna.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.puna.v1.GenerateRequest;
import dev.puna.v1.GenerateServiceGrpc;
import dev.puna.v1.StreamGenerateResponse;
import io.grpc.Channel;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Iterator;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Retries by service config. The hosts of the model die in the first two attempts; the server makes the second. */
class RetriesTest {
  private static Servers.Server server;
  private static ManagedChannel channel;

  @TempDir Path folder;

  @BeforeAll
  static void start() {
    server = new Servers.Server("127.0.0.1:0");
    channel = Grpc.newChannelBuilder(server.address, InsecureChannelCredentials.create())
        .defaultServiceConfig(ServiceConfig.read())
        .build();
  }

  @AfterAll
  static void end() {
    channel.shutdownNow();
    server.close();
  }

  private GenerateRequest crashing() {
    var words = "@crash_once " + folder.resolve("first") + " @crash_once " + folder.resolve("second");
    return Servers.scripted("steady", words + " hello");
  }

  private static String stream(Channel through, GenerateRequest request) {
    Iterator<StreamGenerateResponse> parts = GenerateServiceGrpc.newBlockingStub(through)
        .withDeadlineAfter(Servers.PATIENCE)
        .streamGenerate(request);
    var text = new StringBuilder();
    parts.forEachRemaining(part -> part.getDeltasList().forEach(delta -> text.append(delta.getText())));
    return text.toString();
  }

  @Test
  void aUnaryCallIsRepeated() {
    var stub = GenerateServiceGrpc.newBlockingStub(channel).withDeadlineAfter(Servers.PATIENCE);
    assertEquals("hello", stub.generate(crashing()).getText());
    assertTrue(Files.exists(folder.resolve("second")));
  }

  @Test
  void aStreamWithoutProgressIsRepeated() {
    assertEquals("hello", stream(channel, Servers.withoutProgress(crashing())));
    assertTrue(Files.exists(folder.resolve("second")));
  }

  @Test
  void withoutTheServiceConfigTheFirstFailureCounts() {
    ManagedChannel bare = Servers.connect(server.address);
    var error = assertThrows(
        StatusRuntimeException.class, () -> stream(bare, Servers.withoutProgress(crashing())));
    assertEquals(Status.Code.UNAVAILABLE, error.getStatus().getCode());
    bare.shutdownNow();
  }
}
