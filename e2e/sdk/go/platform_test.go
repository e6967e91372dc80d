package sdk

import (
	"testing"
)

func TestSecrets(t *testing.T) {
	t.Parallel()
	_, c := ready(t, setup{})
	ctx := within(t)
	secret, err := c.GetSecret(ctx, secrets, "password", nil)
	must(t, err)
	equal(t, "password", secret["password"], "s3cret")
	all, err := c.GetBulkSecret(ctx, secrets, nil)
	must(t, err)
	equal(t, "password of all", all["password"]["password"], "s3cret")
	equal(t, "nested secret of all", all["user:name"]["user:name"], "ada")
	_, err = c.GetSecret(ctx, secrets, "absent", nil)
	wantError(t, err, "Internal", "")
	_, err = c.GetSecret(ctx, "nowhere", "password", nil)
	wantError(t, err, "InvalidArgument", "")
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	s, c := ready(t, setup{})
	ctx := within(t)
	must(t, c.SetMetadata(ctx, "colour", "green"))
	metadata, err := c.GetMetadata(ctx)
	must(t, err)
	equal(t, "id", metadata.ID, s.id)
	equal(t, "colour", metadata.ExtendedMetadata["colour"], "green")
	kinds := map[string]string{}
	for _, component := range metadata.RegisteredComponents {
		kinds[component.Name] = component.Type
	}
	equal(t, "store", kinds[store], "state.in-memory")
	equal(t, "broker", kinds[broker], "pubsub.in-memory")
	equal(t, "secrets", kinds[secrets], "secretstores.local.file")
}

func TestMetadataOfAnApplication(t *testing.T) {
	t.Parallel()
	a := serve(t, "http")
	metadata, err := a.client.GetMetadata(within(t))
	must(t, err)
	topics := map[string]string{}
	for _, subscription := range metadata.Subscriptions {
		equal(t, "broker", subscription.PubsubName, broker)
		for _, rule := range subscription.Rules.Rules {
			topics[subscription.Topic] = rule.Path
		}
	}
	equal(t, "route", topics["orders"], "/orders")
}

func TestWaitAndShutdown(t *testing.T) {
	t.Parallel()
	s := start(t, setup{})
	c := connect(t, s)
	must(t, c.Wait(within(t), timeout))
	must(t, c.Shutdown(within(t)))
	eventually(t, "the sidecar is gone", func() bool {
		_, err := c.GetMetadata(within(t))
		return err != nil
	})
}
