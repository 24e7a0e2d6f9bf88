package dev.puna.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.QuotaFailure;
import com.google.rpc.ResourceInfo;
import com.google.rpc.RetryInfo;
import dev.puna.v1.ChatRequest;
import dev.puna.v1.ChatServiceGrpc;
import dev.puna.v1.GenerateServiceGrpc;
import dev.puna.v1.RequestOptions;
import dev.puna.v1.SamplingOptions;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;

/** The details of errors, by which programs decide. */
class ErrorsTest {
  /** Returns the detail of a type; fails if the error has none. */
  private static <T extends Message> T detail(StatusRuntimeException error, Class<T> type) {
    for (Any each : StatusProto.fromThrowable(error).getDetailsList()) {
      if (each.is(type)) {
        try {
          return each.unpack(type);
        } catch (InvalidProtocolBufferException malformed) {
          throw new AssertionError(malformed);
        }
      }
    }
    throw new AssertionError("no " + type.getSimpleName() + " in " + error);
  }

  private static StatusRuntimeException assertFails(Status.Code code, String reason, Executable call) {
    StatusRuntimeException error = assertThrows(StatusRuntimeException.class, call);
    assertEquals(code, error.getStatus().getCode(), error.getMessage());
    ErrorInfo info = detail(error, ErrorInfo.class);
    assertEquals("puna", info.getDomain());
    assertEquals(reason, info.getReason());
    return error;
  }

  @Test
  void anUnknownModelIsNamed() {
    ManagedChannel channel = Servers.connect();
    var chat = ChatServiceGrpc.newBlockingStub(channel);
    var request = ChatRequest.newBuilder().setModel("nobody").build();
    var error = assertFails(Status.Code.NOT_FOUND, "MODEL_NOT_FOUND", () -> chat.streamChat(request).next());
    assertEquals("nobody", detail(error, ErrorInfo.class).getMetadataOrThrow("model"));
    ResourceInfo resource = detail(error, ResourceInfo.class);
    assertEquals("model", resource.getResourceType());
    assertEquals("nobody", resource.getResourceName());
    channel.shutdownNow();
  }

  @Test
  void aWrongFieldIsNamedByItsPath() {
    ManagedChannel channel = Servers.connect();
    var stub = GenerateServiceGrpc.newBlockingStub(channel);
    var request = Servers.scripted("steady", "hello").toBuilder()
        .setOptions(RequestOptions.newBuilder().setSampling(SamplingOptions.newBuilder().setTemperature(-5)))
        .build();
    var error = assertFails(Status.Code.INVALID_ARGUMENT, "INVALID_REQUEST", () -> stub.generate(request));
    BadRequest details = detail(error, BadRequest.class);
    assertEquals(1, details.getFieldViolationsCount());
    assertEquals("options.sampling.temperature", details.getFieldViolations(0).getField());
    channel.shutdownNow();
  }

  @Test
  void aLimitSaysWhenToTryAgain() {
    ManagedChannel channel = ConnectionsTest.secure(Servers.variable("PUNA_LIMITED_API_KEY"));
    Servers.generate(channel, "steady", "hello");
    var error = assertFails(
        Status.Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", () -> Servers.generate(channel, "steady", "hello"));
    long delay = detail(error, RetryInfo.class).getRetryDelay().getSeconds();
    assertTrue(1 <= delay && delay <= 60, "retry after " + delay + " s");
    assertEquals(1, detail(error, QuotaFailure.class).getViolationsCount());
    channel.shutdownNow();
  }
}
