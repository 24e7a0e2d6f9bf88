package clients

import (
	"maps"
	"slices"
	"testing"

	punav1 "puna.dev/clients/go/puna/v1"
)

func TestPullWithProgress(t *testing.T) {
	t.Parallel()
	client, name := punav1.NewModelsServiceClient(plain(t)), variable(t, "PUNA_PULL_MODEL")
	stream, err := client.PullModel(within(t, patience), &punav1.PullModelRequest{Name: name, Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	completed, total := map[string]int64{}, map[string]int64{}
	partial, pulled := false, (*punav1.Model)(nil)
	err = all(stream, func(part *punav1.PullModelResponse) {
		progress := part.GetProgress()
		pulled = part.GetModel()
		if digest := progress.GetDigest(); digest != "" {
			if progress.GetCompletedBytes() < completed[digest] {
				t.Errorf("%s goes back to %d bytes", digest, progress.GetCompletedBytes())
			}
			completed[digest], total[digest] = progress.GetCompletedBytes(), progress.GetTotalBytes()
			partial = partial || 0 < completed[digest] && completed[digest] < total[digest]
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	largest := slices.Max(slices.Collect(maps.Values(total)))
	if pulled.GetName() != name || largest < 3_000_000 || !partial {
		t.Errorf("ended with the model %q after a blob of %d bytes, partly seen: %v", pulled.GetName(), largest, partial)
	}
	listed, err := client.ListModels(within(t, patience), &punav1.ListModelsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(listed.GetModels(), func(model *punav1.Model) bool { return model.GetName() == name }) {
		t.Errorf("%s is not listed", name)
	}
}
