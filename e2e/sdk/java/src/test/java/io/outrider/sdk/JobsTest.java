package io.outrider.sdk;

import static io.outrider.sdk.Sidecar.TIMEOUT;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.dapr.client.DaprClient;
import io.dapr.client.domain.ConstantFailurePolicy;
import io.dapr.client.domain.DeleteJobRequest;
import io.dapr.client.domain.GetJobRequest;
import io.dapr.client.domain.JobSchedule;
import io.dapr.client.domain.ScheduleJobRequest;
import io.dapr.exceptions.DaprException;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Timeout(120)
class JobsTest {
  @ParameterizedTest
  @ValueSource(strings = {"http", "grpc"})
  void jobsFire(String protocol) throws Exception {
    try (Program scheduler = Program.scheduler();
        App app = App.start(protocol, List.of(), scheduler.address);
        DaprClient client = app.sidecar.client().build()) {
      var once = new ScheduleJobRequest("once", Instant.now()).setData("hello".getBytes());
      client.scheduleJob(once).block(TIMEOUT);
      // HTTP applications get what it is wrapped in.
      String call = next(app);
      assertTrue(call.startsWith("/job/once "), call);
      assertTrue(call.length() > "/job/once ".length(), call);
      gone(client, "once");

      var often =
          new ScheduleJobRequest("often", JobSchedule.fromString("@every 100ms")).setRepeat(3);
      client.scheduleJob(often).block(TIMEOUT);
      for (int i = 0; i < 3; i++) {
        call = next(app);
        assertTrue(call.startsWith("/job/often"), call);
      }
      gone(client, "often");

      var policy =
          new ConstantFailurePolicy(2).setDurationBetweenRetries(Duration.ofMillis(1));
      var fails = new ScheduleJobRequest("fails", Instant.now()).setFailurePolicy(policy);
      client.scheduleJob(fails).block(TIMEOUT);
      for (int i = 0; i < 3; i++) {
        call = next(app);
        assertTrue(call.startsWith("/job/fails"), call);
      }
      gone(client, "fails");
      assertTrue(app.calls.isEmpty());
    }
  }

  @Test
  void jobsAreKept() throws Exception {
    try (Program scheduler = Program.scheduler();
        App app = App.start("grpc", List.of(), scheduler.address);
        DaprClient client = app.sidecar.client().build()) {
      byte[] data = "hello".getBytes();
      var rare =
          new ScheduleJobRequest("rare", JobSchedule.yearly()).setRepeat(4).setData(data);
      client.scheduleJob(rare).block(TIMEOUT);
      var job = client.getJob(new GetJobRequest("rare")).block(TIMEOUT);
      assertEquals("rare", job.getName());
      assertEquals(JobSchedule.yearly().getExpression(), job.getSchedule().getExpression());
      assertEquals(4, job.getRepeats());
      assertArrayEquals(data, job.getData());

      // A second of the same name has to say that it takes its place.
      var second = new ScheduleJobRequest("rare", JobSchedule.monthly());
      DaprException error =
          assertThrows(DaprException.class, () -> client.scheduleJob(second).block(TIMEOUT));
      assertEquals("ALREADY_EXISTS", error.getErrorCode());
      client.scheduleJob(second.setOverwrite(true)).block(TIMEOUT);
      job = client.getJob(new GetJobRequest("rare")).block(TIMEOUT);
      assertEquals(JobSchedule.monthly().getExpression(), job.getSchedule().getExpression());

      client.deleteJob(new DeleteJobRequest("rare")).block(TIMEOUT);
      gone(client, "rare");
      var nonsense = new ScheduleJobRequest("n", JobSchedule.fromString("now and then"));
      error =
          assertThrows(DaprException.class, () -> client.scheduleJob(nonsense).block(TIMEOUT));
      assertEquals("INTERNAL", error.getErrorCode());
    }
  }

  private static String next(App app) throws InterruptedException {
    String call = app.calls.poll(TIMEOUT.toSeconds(), TimeUnit.SECONDS);
    assertNotNull(call, "no job");
    return call;
  }

  private static void gone(DaprClient client, String name) throws Exception {
    Sidecar.until(
        name + " is gone",
        () -> {
          try {
            client.getJob(new GetJobRequest(name)).block(TIMEOUT);
            return false;
          } catch (DaprException error) {
            return error.getMessage().contains("job not found");
          }
        });
  }
}
