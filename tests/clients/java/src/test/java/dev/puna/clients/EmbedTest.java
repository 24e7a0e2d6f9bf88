package dev.puna.clients;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.common.primitives.Floats;
import com.google.protobuf.ByteString;
import dev.puna.v1.EmbedRequest;
import dev.puna.v1.EmbedResponse;
import dev.puna.v1.EmbedServiceGrpc;
import dev.puna.v1.VectorEncoding;
import io.grpc.ManagedChannel;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** Embeddings as packed floats. */
class EmbedTest {
  private static final List<String> TEXTS = List.of("Why is the sky blue?", "the color of the sky", "two plus three");

  private final ManagedChannel channel = Servers.connect();

  @AfterEach
  void close() {
    channel.shutdownNow();
  }

  private EmbedResponse embed(VectorEncoding encoding) {
    EmbedResponse answer = EmbedServiceGrpc.newBlockingStub(channel)
        .withDeadlineAfter(Servers.PATIENCE)
        .embed(EmbedRequest.newBuilder()
            .setModel("llamita-embed")
            .addAllInputs(TEXTS)
            .setEncoding(encoding)
            .build());
    assertEquals(encoding, answer.getEncoding());
    assertEquals(TEXTS.size(), answer.getVectorsCount());
    return answer;
  }

  private static float[] unpack(ByteString packed) {
    FloatBuffer floats = packed.asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
    float[] values = new float[floats.remaining()];
    floats.get(values);
    return values;
  }

  private static double similarity(float[] one, float[] other) {
    double sum = 0;
    for (int i = 0; i < one.length; i++) {
      sum += one[i] * other[i];
    }
    return sum;
  }

  @Test
  void packedVectorsEqualTheLists() {
    EmbedResponse packed = embed(VectorEncoding.VECTOR_ENCODING_FLOAT32_LE);
    EmbedResponse lists = embed(VectorEncoding.VECTOR_ENCODING_FLOAT_LIST);
    float[][] vectors = new float[TEXTS.size()][];
    for (int i = 0; i < vectors.length; i++) {
      assertEquals(0, packed.getVectors(i).getValuesCount());
      vectors[i] = unpack(packed.getVectors(i).getPacked());
      assertEquals(128, vectors[i].length);
      assertArrayEquals(Floats.toArray(lists.getVectors(i).getValuesList()), vectors[i]);
    }
    assertEquals(1, similarity(vectors[0], vectors[0]), 1e-5);
    assertTrue(similarity(vectors[0], vectors[1]) > similarity(vectors[0], vectors[2]));
  }
}
