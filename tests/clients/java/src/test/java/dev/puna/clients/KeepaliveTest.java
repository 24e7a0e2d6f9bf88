package dev.puna.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;

import dev.puna.v1.GenerateServiceGrpc;
import io.grpc.ConnectivityState;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.parallel.Execution;
import org.junit.jupiter.api.parallel.ExecutionMode;

/** Pings over a silence, with a call and without. */
@Execution(ExecutionMode.CONCURRENT)
class KeepaliveTest {
  /** Longer than the 50 seconds after which a server that counts pings ends a connection of grpc-java. */
  private static final Duration SILENCE = Duration.ofSeconds(60);

  private final ManagedChannel channel =
      Grpc.newChannelBuilder(Servers.variable("PUNA_ADDRESS"), InsecureChannelCredentials.create())
          .keepAliveTime(10, TimeUnit.SECONDS)
          .keepAliveTimeout(5, TimeUnit.SECONDS)
          .keepAliveWithoutCalls(true)
          .build();
  private final CompletableFuture<Void> disconnected = new CompletableFuture<>();

  @BeforeEach
  void connect() {
    Servers.generate(channel, "steady", "hello");
    assertEquals(ConnectivityState.READY, channel.getState(false));
    channel.notifyWhenStateChanged(ConnectivityState.READY, () -> disconnected.complete(null));
  }

  @AfterEach
  void close() {
    channel.shutdownNow();
  }

  @Test
  void pingsKeepASilentCallAlive() {
    var stub = GenerateServiceGrpc.newBlockingStub(channel).withDeadlineAfter(SILENCE.plus(Servers.PATIENCE));
    var request = Servers.scripted("silent", "@wait " + SILENCE.toSeconds() + " hello");
    assertEquals("hello", stub.generate(request).getText());
    assertFalse(disconnected.isDone());
  }

  @Test
  void pingsKeepAnIdleConnectionOpen() throws InterruptedException {
    Thread.sleep(SILENCE.toMillis());
    assertFalse(disconnected.isDone());
    assertEquals("hello", Servers.generate(channel, "steady", "hello"));
  }
}
