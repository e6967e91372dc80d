package sdk

import (
	"testing"

	"github.com/dapr/go-sdk/client"
)

func TestState(t *testing.T) {
	t.Parallel()
	_, c := ready(t, setup{})
	ctx := within(t)

	item, err := c.GetState(ctx, store, "absent", nil)
	must(t, err)
	equal(t, "absent value", string(item.Value), "")
	equal(t, "absent etag", item.Etag, "")

	must(t, c.SaveState(ctx, store, "k", []byte(`{"n":1}`), map[string]string{"contentType": "application/json"}))
	item, err = c.GetStateWithConsistency(ctx, store, "k", nil, client.StateConsistencyStrong)
	must(t, err)
	equal(t, "value", string(item.Value), `{"n":1}`)
	if item.Etag == "" {
		t.Fatal("no etag")
	}

	firstWrite := client.WithConcurrency(client.StateConcurrencyFirstWrite)
	must(t, c.SaveStateWithETag(ctx, store, "k", []byte("2"), item.Etag, nil, firstWrite))
	err = c.SaveStateWithETag(ctx, store, "k", []byte("3"), item.Etag, nil, firstWrite)
	wantError(t, err, "Aborted", "")
	err = c.DeleteStateWithETag(ctx, store, "k", &client.ETag{Value: item.Etag}, nil,
		&client.StateOptions{Concurrency: client.StateConcurrencyFirstWrite})
	wantError(t, err, "Aborted", "")

	must(t, c.DeleteState(ctx, store, "k", nil))
	item, err = c.GetState(ctx, store, "k", nil)
	must(t, err)
	equal(t, "deleted value", string(item.Value), "")
}

func TestStateInBulk(t *testing.T) {
	t.Parallel()
	_, c := ready(t, setup{})
	ctx := within(t)
	must(t, c.SaveBulkState(ctx, store,
		&client.SetStateItem{Key: "a", Value: []byte(`"1"`)},
		&client.SetStateItem{Key: "b", Value: []byte(`"2"`)}))
	got, err := c.GetBulkState(ctx, store, []string{"a", "b", "c"}, nil, 2)
	must(t, err)
	values := map[string]string{}
	for _, item := range got {
		equal(t, "error of "+item.Key, item.Error, "")
		values[item.Key] = string(item.Value)
	}
	equal(t, "rows", len(values), 3)
	equal(t, "a", values["a"], `"1"`)
	equal(t, "b", values["b"], `"2"`)
	equal(t, "c", values["c"], "")
	must(t, c.DeleteBulkState(ctx, store, []string{"a", "b"}, nil))
	item, err := c.GetState(ctx, store, "a", nil)
	must(t, err)
	equal(t, "deleted value", string(item.Value), "")
}

func TestStateInTransactions(t *testing.T) {
	t.Parallel()
	_, c := ready(t, setup{})
	ctx := within(t)
	must(t, c.SaveState(ctx, store, "old", []byte("1"), nil))
	must(t, c.ExecuteStateTransaction(ctx, store, nil, []*client.StateOperation{
		{Type: client.StateOperationTypeUpsert, Item: &client.SetStateItem{Key: "new", Value: []byte("2")}},
		{Type: client.StateOperationTypeDelete, Item: &client.SetStateItem{Key: "old"}},
	}))
	for key, want := range map[string]string{"new": "2", "old": ""} {
		item, err := c.GetState(ctx, store, key, nil)
		must(t, err)
		equal(t, key, string(item.Value), want)
	}
	// One stale etag, and nothing happens.
	err := c.ExecuteStateTransaction(ctx, store, nil, []*client.StateOperation{
		{Type: client.StateOperationTypeUpsert, Item: &client.SetStateItem{Key: "other", Value: []byte("3")}},
		{Type: client.StateOperationTypeDelete, Item: &client.SetStateItem{
			Key: "new", Etag: &client.ETag{Value: "12345"},
			Options: &client.StateOptions{Concurrency: client.StateConcurrencyFirstWrite},
		}},
	})
	if err == nil {
		t.Fatal("a stale etag was accepted")
	}
	for key, want := range map[string]string{"new": "2", "other": ""} {
		item, err := c.GetState(ctx, store, key, nil)
		must(t, err)
		equal(t, key, string(item.Value), want)
	}
}

func TestStateErrors(t *testing.T) {
	t.Parallel()
	_, c := ready(t, setup{})
	ctx := within(t)
	_, err := c.GetState(ctx, "nowhere", "k", nil)
	wantError(t, err, "InvalidArgument", "DAPR_STATE_NOT_FOUND")
	err = c.SaveState(ctx, "nowhere", "k", []byte("1"), nil)
	wantError(t, err, "InvalidArgument", "DAPR_STATE_NOT_FOUND")
	err = c.SaveState(ctx, store, "a||b", []byte("1"), nil)
	wantError(t, err, "InvalidArgument", "DAPR_STATE_ILLEGAL_KEY")
	_, err = c.QueryStateAlpha1(ctx, store, "{}", nil)
	wantError(t, err, "Internal", "DAPR_STATE_QUERYING_NOT_SUPPORTED")
}
