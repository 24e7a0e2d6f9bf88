package dev.puna.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.puna.v1.DeleteModelRequest;
import dev.puna.v1.GetModelRequest;
import dev.puna.v1.ModelsServiceGrpc;
import dev.puna.v1.PullModelRequest;
import dev.puna.v1.PullModelResponse;
import dev.puna.v1.TransferProgress;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.Iterator;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** A model from a registry, with progress. */
class PullTest {
  private final ManagedChannel channel = Servers.connect();

  @AfterEach
  void close() {
    channel.shutdownNow();
  }

  @Test
  void aPullReportsProgressAndLeavesTheModel() {
    String name = Servers.variable("PUNA_PULL_MODEL");
    var models = ModelsServiceGrpc.newBlockingStub(channel);
    var deletion = DeleteModelRequest.newBuilder().setName(name).build();
    try {
      models.deleteModel(deletion);
    } catch (StatusRuntimeException error) {
      assertEquals(Status.Code.NOT_FOUND, error.getStatus().getCode());
    }
    Iterator<PullModelResponse> parts =
        models.pullModel(PullModelRequest.newBuilder().setName(name).setInsecure(true).build());
    TransferProgress last = null;
    while (parts.hasNext()) {
      last = parts.next().getProgress();
      assertTrue(last.getCompletedBytes() <= last.getTotalBytes(), last.toString());
    }
    assertEquals("success", last.getStatus());
    var request = GetModelRequest.newBuilder().setName(name).build();
    assertEquals(name, models.getModel(request).getModel().getName());
    models.deleteModel(deletion);
  }
}
