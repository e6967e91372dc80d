package sdk

import (
	"testing"
	"time"

	"github.com/dapr/go-sdk/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestJobsFire(t *testing.T) {
	t.Parallel()
	a := serve(t, "grpc", setup{flags: []string{scheduler(t)}})
	ctx := within(t)
	data, err := anypb.New(wrapperspb.String("hello"))
	must(t, err)
	gone := func(name string) {
		t.Helper()
		eventually(t, name+" is gone", func() bool {
			_, err := a.client.GetJob(ctx, name)
			return err != nil && status.Code(err) == codes.Internal
		})
	}

	must(t, a.client.ScheduleJob(ctx, client.NewJob("once", client.WithJobDueTime("0s"), client.WithJobData(data))))
	event := receive(t, "the job fires", a.jobs)
	equal(t, "job", event.JobType, "once")
	equal(t, "data", string(event.Data), string(data.GetValue()))
	gone("once")

	must(t, a.client.ScheduleJob(ctx, client.NewJob("often", client.WithJobSchedule("@every 100ms"), client.WithJobRepeats(3))))
	for range 3 {
		equal(t, "job", receive(t, "the job fires again", a.jobs).JobType, "often")
	}
	gone("often")

	must(t, a.client.ScheduleJob(ctx, client.NewJob("fails", client.WithJobDueTime("0s"),
		client.WithJobConstantFailurePolicy(),
		client.WithJobConstantFailurePolicyMaxRetries(2),
		client.WithJobConstantFailurePolicyInterval(time.Millisecond))))
	for range 3 {
		equal(t, "job", receive(t, "the job is tried", a.jobs).JobType, "fails")
	}
	gone("fails")
	equal(t, "triggers too many", len(a.jobs), 0)
}

func TestJobsAreKept(t *testing.T) {
	t.Parallel()
	a := serve(t, "grpc", setup{flags: []string{scheduler(t)}})
	ctx := within(t)
	data, err := anypb.New(wrapperspb.String("hello"))
	must(t, err)
	must(t, a.client.ScheduleJob(ctx, client.NewJob("rare", client.WithJobSchedule("@yearly"),
		client.WithJobRepeats(4), client.WithJobTTL("20000h"), client.WithJobData(data))))
	job, err := a.client.GetJob(ctx, "rare")
	must(t, err)
	equal(t, "schedule", *job.Schedule, "@yearly")
	equal(t, "repeats", *job.Repeats, 4)
	equal(t, "data", string(job.Data.GetValue()), string(data.GetValue()))

	// A second of the same name has to say that it takes its place.
	second := client.NewJob("rare", client.WithJobSchedule("@monthly"), client.WithJobDropFailurePolicy())
	wantError(t, a.client.ScheduleJob(ctx, second), "AlreadyExists", "")
	second.Overwrite = true
	must(t, a.client.ScheduleJob(ctx, second))
	job, err = a.client.GetJob(ctx, "rare")
	must(t, err)
	equal(t, "schedule", *job.Schedule, "@monthly")

	must(t, a.client.DeleteJob(ctx, "rare"))
	_, err = a.client.GetJob(ctx, "rare")
	wantError(t, err, "Internal", "")
	err = a.client.ScheduleJob(ctx, client.NewJob("nonsense", client.WithJobSchedule("now and then")))
	wantError(t, err, "Internal", "")
}
