package dev.puna.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.puna.v1.GetServerInfoRequest;
import dev.puna.v1.GetServerInfoResponse;
import dev.puna.v1.ServerServiceGrpc;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.ClientInterceptor;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.ServerSocket;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

/** TLS with an API key, and a server that is not there yet. */
class ConnectionsTest {
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private static ClientInterceptor bearer(String key) {
    var headers = new Metadata();
    headers.put(AUTHORIZATION, "Bearer " + key);
    return MetadataUtils.newAttachHeadersInterceptor(headers);
  }

  /** Connects to the server with TLS, with an API key. */
  static ManagedChannel secure(String key) {
    try {
      ChannelCredentials tls =
          TlsChannelCredentials.newBuilder().trustManager(new File(Servers.variable("PUNA_CA"))).build();
      return Grpc.newChannelBuilder(Servers.variable("PUNA_SECURE_ADDRESS"), tls).intercept(bearer(key)).build();
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  private static GetServerInfoResponse info(Channel channel) {
    return ServerServiceGrpc.newBlockingStub(channel)
        .withDeadlineAfter(Servers.PATIENCE)
        .getServerInfo(GetServerInfoRequest.getDefaultInstance());
  }

  private static Status.Code failure(Channel channel) {
    return assertThrows(StatusRuntimeException.class, () -> info(channel)).getStatus().getCode();
  }

  @Test
  void tlsAndAKeyOpenTheServer() {
    ManagedChannel channel = secure(Servers.variable("PUNA_API_KEY"));
    assertTrue(info(channel).getBackendsList().stream().anyMatch(each -> each.getName().equals("llama_cpp")));
    channel.shutdownNow();
  }

  @Test
  void aWrongKeyAndAnUnknownAuthorityAreRefused() {
    ManagedChannel wrong = secure("puna_0123456789ab_wrong");
    assertEquals(Status.Code.UNAUTHENTICATED, failure(wrong));
    wrong.shutdownNow();
    ManagedChannel unknown =
        Grpc.newChannelBuilder(Servers.variable("PUNA_SECURE_ADDRESS"), TlsChannelCredentials.create()).build();
    assertEquals(Status.Code.UNAVAILABLE, failure(unknown));
    unknown.shutdownNow();
  }

  @Test
  void aCallWaitsForAServerThatStarts() throws Exception {
    String address;
    try (var socket = new ServerSocket(0)) {
      address = "127.0.0.1:" + socket.getLocalPort();
    }
    ManagedChannel channel = Servers.connect(address);
    assertEquals(Status.Code.UNAVAILABLE, failure(channel));
    var call = CompletableFuture.supplyAsync(() -> ServerServiceGrpc.newBlockingStub(channel)
        .withWaitForReady()
        .withDeadlineAfter(Servers.PATIENCE)
        .getServerInfo(GetServerInfoRequest.getDefaultInstance()));
    Thread.sleep(500);
    assertFalse(call.isDone());
    try (var server = new Servers.Server(address)) {
      assertFalse(call.get(Servers.PATIENCE.toSeconds(), TimeUnit.SECONDS).getVersion().isEmpty());
    }
    channel.shutdownNow();
  }
}
