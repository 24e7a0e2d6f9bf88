package dev.puna.clients;

import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;

/** The service config that Puna brings, as ManagedChannelBuilder.defaultServiceConfig takes it. */
final class ServiceConfig {
  private ServiceConfig() {}

  static Map<String, ?> read() {
    try {
      String text = Files.readString(Path.of(Servers.variable("PUNA_SERVICE_CONFIG")));
      return new Gson().fromJson(text, new TypeToken<Map<String, Object>>() {});
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }
}
