package dev.puna.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.puna.v1.GetModelRequest;
import dev.puna.v1.JobPhase;
import dev.puna.v1.JobProgress;
import dev.puna.v1.ModelsServiceGrpc;
import dev.puna.v1.PullModelRequest;
import dev.puna.v1.PullModelResponse;
import io.grpc.ManagedChannel;
import java.util.ArrayList;
import java.util.HashMap;
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
  void aPullReportsProgressAndEndsWithTheModel() {
    String name = Servers.variable("PUNA_PULL_MODEL");
    var models = ModelsServiceGrpc.newBlockingStub(channel).withDeadlineAfter(Servers.PATIENCE);
    Iterator<PullModelResponse> parts =
        models.pullModel(PullModelRequest.newBuilder().setName(name).setInsecure(true).build());
    var completed = new HashMap<String, Long>();
    var phases = new ArrayList<JobPhase>();
    boolean partial = false;
    PullModelResponse part = parts.next();
    for (; part.hasProgress(); part = parts.next()) {
      JobProgress progress = part.getProgress();
      phases.add(progress.getPhase());
      if (progress.getPhase() == JobPhase.JOB_PHASE_DOWNLOADING) {
        long done = progress.getCompletedBytes();
        Long before = completed.put(progress.getDigest(), done);
        assertTrue((before == null || before <= done) && done <= progress.getTotalBytes(), progress.toString());
        partial |= 0 < done && done < progress.getTotalBytes();
      }
    }
    assertTrue(partial, "no part of a blob was reported");
    assertEquals(JobPhase.JOB_PHASE_READING_MANIFEST, phases.get(0));
    assertEquals(JobPhase.JOB_PHASE_DONE, phases.get(phases.size() - 1));
    assertEquals(name, part.getModel().getName());
    var request = GetModelRequest.newBuilder().setName(name).build();
    assertEquals(part.getModel().getDigest(), models.getModel(request).getModel().getDigest());
  }
}
