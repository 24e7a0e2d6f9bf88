package dev.puna.clients;

import static org.junit.jupiter.api.Assertions.assertNotNull;

import dev.puna.v1.GenerateRequest;
import dev.puna.v1.GenerateServiceGrpc;
import dev.puna.v1.ListRequestsRequest;
import dev.puna.v1.RequestOptions;
import dev.puna.v1.ServerServiceGrpc;
import io.grpc.Channel;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Connections, servers of a test's own, and requests to the models of the scripted backend. */
final class Servers {
  /** Time that a step may take on a loaded machine. */
  static final Duration PATIENCE = Duration.ofSeconds(30);

  private static final Pattern GREETING = Pattern.compile("gRPC on ([^\\s,]+)");

  private Servers() {}

  /** Returns a variable of the harness. */
  static String variable(String name) {
    String value = System.getenv(name);
    assertNotNull(value, name + " is not set: run `make test-clients CLIENT=java`");
    return value;
  }

  /** Connects to an address without TLS. */
  static ManagedChannel connect(String address) {
    return Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
  }

  /** Connects to the shared server without TLS and keys. */
  static ManagedChannel connect() {
    return connect(variable("PUNA_ADDRESS"));
  }

  /** Returns a request for the scripted backend, whose prompt is a list of commands. */
  static GenerateRequest scripted(String model, String prompt) {
    return GenerateRequest.newBuilder().setModel(model).setText(prompt).build();
  }

  /** Returns the same request without progress messages. */
  static GenerateRequest withoutProgress(GenerateRequest request) {
    RequestOptions options = RequestOptions.newBuilder().setOmitProgress(true).build();
    return request.toBuilder().setOptions(options).build();
  }

  /** Makes a unary call of Generate; returns the text. */
  static String generate(Channel channel, String model, String prompt) {
    var stub = GenerateServiceGrpc.newBlockingStub(channel).withDeadlineAfter(PATIENCE);
    return stub.generate(scripted(model, prompt)).getText();
  }

  /** Returns the number of requests that wait or run, of one model. */
  static int requests(Channel channel, String model) {
    var request = ListRequestsRequest.newBuilder().setModel(model).build();
    return ServerServiceGrpc.newBlockingStub(channel).listRequests(request).getRequestsCount();
  }

  /** Waits for a condition that has no event to wait for. */
  static void waitUntil(Duration limit, String failure, BooleanSupplier condition) throws InterruptedException {
    long end = System.nanoTime() + limit.toNanos();
    while (!condition.getAsBoolean()) {
      if (System.nanoTime() > end) {
        throw new AssertionError(failure);
      }
      Thread.sleep(20);
    }
  }

  /** A server of a test's own. It is killed when it is closed. */
  static final class Server implements AutoCloseable {
    final String address;
    private final Process process;

    /** Starts a server and waits until it is ready. Port 0 chooses a free one. Settings are environment variables. */
    Server(String address, Map<String, String> settings) {
      try {
        var builder = new ProcessBuilder(variable("PUNA_SERVE"), address);
        builder.environment().putAll(settings);
        process = builder.redirectError(ProcessBuilder.Redirect.INHERIT).start();
        String greeting = process.inputReader().readLine();
        assertNotNull(greeting, "the server did not start");
        Matcher matcher = GREETING.matcher(greeting);
        this.address = matcher.find() ? matcher.group(1) : address;
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    }

    Server(String address) {
      this(address, Map.of());
    }

    /** Asks the server to end with SIGTERM, as a supervisor does, and waits for the end; returns its status. */
    int drain() throws InterruptedException {
      process.destroy();
      return process.waitFor(PATIENCE.toSeconds(), TimeUnit.SECONDS) ? process.exitValue() : -1;
    }

    @Override
    public void close() {
      process.destroyForcibly();
    }
  }
}
