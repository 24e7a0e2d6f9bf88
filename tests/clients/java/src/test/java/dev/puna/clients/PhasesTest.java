package dev.puna.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.puna.v1.GenerateServiceGrpc;
import dev.puna.v1.ModelsServiceGrpc;
import dev.puna.v1.StreamGenerateResponse;
import dev.puna.v1.UnloadModelRequest;
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
  /** Has one slot. Loading it takes 1.5 seconds. */
  private static final String MODEL = "phases";

  private final ManagedChannel channel = Servers.connect();
  private final CancellableContext context = Context.current().withCancellation();
  private final CancellableContext firstContext = Context.current().withCancellation();

  enum Phase { QUEUE, LOAD, PREFILL, DECODE }

  @AfterEach
  void close() {
    firstContext.cancel(null);
    context.cancel(null);
    channel.shutdownNow();
  }

  private Iterator<StreamGenerateResponse> start(CancellableContext within, String prompt, Duration deadline)
      throws Exception {
    var stub = GenerateServiceGrpc.newBlockingStub(channel).withDeadlineAfter(deadline);
    return within.call(() -> stub.streamGenerate(Servers.scripted(MODEL, prompt)));
  }

  private static Phase phase(StreamGenerateResponse part, Phase before) {
    return switch (part.getProgress().getPhaseCase()) {
      case QUEUED -> Phase.QUEUE;
      case LOADING -> Phase.LOAD;
      case PROMPT_EVAL -> Phase.PREFILL;
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

  /** Reads until the call fails; returns the status, after seeing that the phase was the last one. */
  private static Status.Code readToError(Phase phase, Iterator<StreamGenerateResponse> parts) {
    var error = assertThrows(StatusRuntimeException.class, () -> {
      while (parts.hasNext()) {
        assertEquals(phase, phase(parts.next(), phase));
      }
    });
    return error.getStatus().getCode();
  }

  /** Prepares the model for a phase, and returns the prompt that stays in it. */
  private String prepare(Phase phase) throws Exception {
    if (phase == Phase.LOAD) {
      ModelsServiceGrpc.newBlockingStub(channel)
          .unloadModel(UnloadModelRequest.newBuilder().setName(MODEL).build());
      return "hello";
    }
    Servers.generate(channel, MODEL, "hello");
    switch (phase) {
      case QUEUE:
        readUntil(Phase.DECODE, start(firstContext, "one @wait 60", Duration.ofMinutes(2)));
        return "hello";
      case PREFILL:
        return "@prefill 600 0.1 hello";
      default:
        return "one @wait 60";
    }
  }

  /** Asserts that nothing is left of earlier requests and that the slot serves the next one. */
  private void assertFree(Phase phase) throws Exception {
    Duration limit = Duration.ofSeconds(5);
    if (phase == Phase.QUEUE) {
      Servers.waitUntil(limit, "the request is left", () -> Servers.requests(channel, MODEL) == 1);
      firstContext.cancel(null);
    }
    Servers.waitUntil(limit, "a request is left", () -> Servers.requests(channel, MODEL) == 0);
    assertEquals("hello", Servers.generate(channel, MODEL, "hello"));
  }

  @ParameterizedTest
  @EnumSource
  void aDeadlinePasses(Phase phase) throws Exception {
    String prompt = prepare(phase);
    long begin = System.nanoTime();
    // A load of 1.5 seconds cannot end before its deadline. On a busy machine, the call may not hear of it either.
    var deadline = Duration.ofSeconds(phase == Phase.LOAD ? 1 : 3);
    var parts = start(context, prompt, deadline);
    if (phase != Phase.LOAD) {
      readUntil(phase, parts);
    }
    assertEquals(Status.Code.DEADLINE_EXCEEDED, readToError(phase, parts));
    assertTrue(System.nanoTime() - begin < deadline.plusSeconds(3).toNanos());
    assertFree(phase);
  }

  @ParameterizedTest
  @EnumSource
  void aClientCancels(Phase phase) throws Exception {
    var parts = start(context, prepare(phase), Duration.ofMinutes(2));
    readUntil(phase, parts);
    context.cancel(null);
    assertEquals(Status.Code.CANCELLED, readToError(phase, parts));
    assertFree(phase);
  }
}
