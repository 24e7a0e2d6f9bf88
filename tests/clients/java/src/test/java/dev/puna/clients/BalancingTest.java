package dev.puna.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.puna.v1.GenerateServiceGrpc;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ClientInterceptors;
import io.grpc.EquivalentAddressGroup;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.ForwardingClientCallListener.SimpleForwardingClientCallListener;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.NameResolver;
import io.grpc.NameResolverProvider;
import io.grpc.NameResolverRegistry;
import io.grpc.StatusOr;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.URI;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.Test;

/** Two servers behind one channel, of which one ends while it serves, and connections that the server ends. */
class BalancingTest {
  private static final int CLIENTS = 8;

  /** Resolves "static:///HOST:PORT,HOST:PORT". A name with two addresses in DNS needs no such class. */
  private static final class StaticResolvers extends NameResolverProvider {
    @Override
    protected boolean isAvailable() {
      return true;
    }

    @Override
    protected int priority() {
      return 5;
    }

    @Override
    public String getDefaultScheme() {
      return "static";
    }

    @Override
    public NameResolver newNameResolver(URI target, NameResolver.Args args) {
      List<EquivalentAddressGroup> groups = Arrays.stream(target.getPath().substring(1).split(","))
          .map(address -> URI.create("grpc://" + address))
          .map(uri -> new EquivalentAddressGroup(new InetSocketAddress(uri.getHost(), uri.getPort())))
          .toList();
      return new NameResolver() {
        @Override
        public String getServiceAuthority() {
          return "localhost";
        }

        @Override
        public void start(Listener2 listener) {
          listener.onResult(ResolutionResult.newBuilder().setAddressesOrError(StatusOr.fromValue(groups)).build());
        }

        @Override
        public void shutdown() {}
      };
    }
  }

  /** Streams one answer. */
  private static String stream(Channel channel) {
    var request = Servers.withoutProgress(Servers.scripted("steady", "one @wait 0.05 two @wait 0.05 three"));
    var text = new StringBuilder();
    GenerateServiceGrpc.newBlockingStub(channel)
        .withDeadlineAfter(Servers.PATIENCE)
        .streamGenerate(request)
        .forEachRemaining(part -> part.getDeltasList().forEach(delta -> text.append(delta.getText())));
    return text.toString();
  }

  /** Calls that follow each other without a pause. */
  private static final class Clients implements AutoCloseable {
    private final AtomicBoolean done = new AtomicBoolean();
    private final ExecutorService threads = Executors.newFixedThreadPool(CLIENTS);
    private final List<Future<Integer>> counts = new ArrayList<>();

    Clients(Channel channel) {
      for (int i = 0; i < CLIENTS; i++) {
        counts.add(threads.submit(() -> {
          int count = 0;
          for (; !done.get(); count++) {
            assertEquals("onetwothree", stream(channel));
          }
          return count;
        }));
      }
    }

    /** Waits for the last calls; fails if one of all has failed, or if a client has made none. */
    void stop() throws Exception {
      done.set(true);
      for (Future<Integer> count : counts) {
        assertTrue(count.get(Servers.PATIENCE.toSeconds(), TimeUnit.SECONDS) > 0);
      }
    }

    @Override
    public void close() {
      done.set(true);
      threads.shutdownNow();
    }
  }

  private static boolean isBusy(Channel channel) {
    return Servers.requests(channel, "steady") > 0;
  }

  @Test
  void nothingIsLostWhileOneOfTwoServersDrains() throws Exception {
    NameResolverRegistry.getDefaultRegistry().register(new StaticResolvers());
    try (var one = new Servers.Server("127.0.0.1:0"); var other = new Servers.Server("127.0.0.1:0")) {
      ManagedChannel toOne = Servers.connect(one.address);
      ManagedChannel toOther = Servers.connect(other.address);
      Servers.generate(toOne, "steady", "hello");
      Servers.generate(toOther, "steady", "hello");
      String target = "static:///" + one.address + "," + other.address;
      ManagedChannel channel = Grpc.newChannelBuilder(target, InsecureChannelCredentials.create())
          .defaultServiceConfig(ServiceConfig.read())
          .build();
      try (var clients = new Clients(channel)) {
        Servers.waitUntil(Servers.PATIENCE, "a server gets no calls", () -> isBusy(toOne) && isBusy(toOther));
        assertEquals(0, one.drain());
        Thread.sleep(1000);
        clients.stop();
      }
      for (ManagedChannel each : List.of(channel, toOne, toOther)) {
        each.shutdownNow();
      }
    }
  }

  @Test
  void nothingIsLostWhenConnectionsReachTheirAge() throws Exception {
    var settings = Map.of("PUNA_CONNECTION_AGE", "1s", "PUNA_CONNECTION_AGE_GRACE", "20s");
    Set<SocketAddress> connections = ConcurrentHashMap.newKeySet();
    try (var server = new Servers.Server("127.0.0.1:0", settings)) {
      ManagedChannel channel = Servers.connect(server.address);
      ClientInterceptor recorder = new ClientInterceptor() {
        @Override
        public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
          return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
            @Override
            public void start(Listener<A> listener, Metadata headers) {
              super.start(new SimpleForwardingClientCallListener<>(listener) {
                @Override
                public void onHeaders(Metadata answer) {
                  connections.add(getAttributes().get(Grpc.TRANSPORT_ATTR_LOCAL_ADDR));
                  super.onHeaders(answer);
                }
              }, headers);
            }
          };
        }
      };
      try (var clients = new Clients(ClientInterceptors.intercept(channel, recorder))) {
        Servers.waitUntil(Servers.PATIENCE, "the client keeps its connection", () -> connections.size() >= 3);
        clients.stop();
      }
      channel.shutdownNow();
    }
  }
}
