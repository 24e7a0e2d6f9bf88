package dev.puna.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.puna.v1.GenerateServiceGrpc;
import dev.puna.v1.StreamGenerateResponse;
import io.grpc.Context;
import io.grpc.Context.CancellableContext;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.Iterator;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Every phase of a request, ended by its deadline and by its client: the status is right and the slot is free. */
class PhasesTest {
  private final ManagedChannel channel = Servers.connect();
  private final CancellableContext context = Context.current().withCancellation();
  private final CancellableContext firstContext = Context.current().withCancellation();

  enum Phase {
    QUEUE, LOAD, PREFILL, DECODE;

    /** Returns the model whose requests can be held in the phase. */
    String model() {
      return this == LOAD ? "stuck" : "phases";
    }
  }

  @AfterEach
  void close() {
    firstContext.cancel(null);
    context.cancel(null);
    channel.shutdownNow();
  }

  private Iterator<StreamGenerateResponse> start(
      CancellableContext within, Phase phase, String prompt, Duration deadline) throws Exception {
    var stub = GenerateServiceGrpc.newBlockingStub(channel).withDeadlineAfter(deadline);
    return within.call(() -> stub.streamGenerate(Servers.scripted(phase.model(), prompt)));
  }

  private static Phase phase(StreamGenerateResponse part, Phase before) {
    return switch (part.getProgress().getPhaseCase()) {
      case QUEUED -> Phase.QUEUE;
      case LOADING -> Phase.LOAD;
      case PREFILL -> Phase.PREFILL;
      default -> part.getDeltasCount() > 0 ? Phase.DECODE : before;
    };
  }

  /** Reads until a phase is seen. */
  private static void readUntil(Phase phase, Iterator<StreamGenerateResponse> parts) {
    Phase seen = null;
    while (seen != phase) {
      assertTrue(parts.hasNext(), "the answer ended before the phase " + phase);
      seen = phase(parts.next(), seen);
    }
  }

  /** Reads until the call fails; returns the status, after seeing that no later phase began. */
  private static Status.Code readToError(Phase phase, Iterator<StreamGenerateResponse> parts) {
    var error = assertThrows(StatusRuntimeException.class, () -> {
      while (parts.hasNext()) {
        assertTrue(phase(parts.next(), phase).compareTo(phase) <= 0);
      }
    });
    return error.getStatus().getCode();
  }

  /** Returns a prompt that stays in a phase, after holding the slot with another request in the case of the queue. */
  private String prepare(Phase phase) throws Exception {
    switch (phase) {
      case QUEUE:
        readUntil(Phase.DECODE, start(firstContext, phase, "one @wait 60", Duration.ofMinutes(2)));
        return "hello";
      case PREFILL:
        return "@prefill 600 0.1 hello";
      case DECODE:
        return "one @wait 60";
      default:
        return "hello";
    }
  }

  private void assertRequests(Phase phase, int count) throws InterruptedException {
    Servers.waitUntil(
        Duration.ofSeconds(5), "a request is left", () -> Servers.requests(channel, phase.model()) == count);
  }

  /** Asserts that nothing is left of the request and that the slot serves the next one. */
  private void assertFree(Phase phase) throws Exception {
    if (phase == Phase.QUEUE) {
      assertRequests(phase, 1);
      firstContext.cancel(null);
    }
    assertRequests(phase, 0);
    if (phase != Phase.LOAD) {
      assertEquals("hello", Servers.generate(channel, phase.model(), "hello"));
    }
  }

  @ParameterizedTest
  @EnumSource
  void aDeadlinePasses(Phase phase) throws Exception {
    String prompt = prepare(phase);
    var deadline = Duration.ofSeconds(3);
    long begin = System.nanoTime();
    var parts = start(context, phase, prompt, deadline);
    readUntil(phase, parts);
    assertEquals(Status.Code.DEADLINE_EXCEEDED, readToError(phase, parts));
    assertTrue(System.nanoTime() - begin < deadline.multipliedBy(2).toNanos());
    assertFree(phase);
  }

  @ParameterizedTest
  @EnumSource
  void aClientCancels(Phase phase) throws Exception {
    var parts = start(context, phase, prepare(phase), Duration.ofMinutes(2));
    readUntil(phase, parts);
    context.cancel(null);
    assertEquals(Status.Code.CANCELLED, readToError(phase, parts));
    assertFree(phase);
  }
}
