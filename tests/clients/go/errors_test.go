package clients

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	punav1 "puna.dev/clients/go/puna/v1"
)

// detail returns the detail of a type, or fails the test.
func detail[D proto.Message](t *testing.T, failed *status.Status) D {
	t.Helper()
	for _, each := range failed.Details() {
		if found, ok := each.(D); ok {
			return found
		}
	}
	t.Fatalf("no %T among %v", *new(D), failed.Details())
	panic("unreachable")
}

func chat(model, content string, options *punav1.RequestOptions) *punav1.ChatRequest {
	return &punav1.ChatRequest{Model: model, Messages: []*punav1.ChatMessage{{Role: "user", Content: content}}, Options: options}
}

func TestErrorDetails(t *testing.T) {
	t.Parallel()
	client := punav1.NewChatServiceClient(plain(t))
	fail := func(t *testing.T, request *punav1.ChatRequest, code codes.Code, reason string) (*status.Status, map[string]string) {
		t.Helper()
		_, err := client.Chat(within(t, patience), request)
		failed := expect(t, err, code)
		info := detail[*errdetails.ErrorInfo](t, failed)
		if info.GetDomain() != "puna" || info.GetReason() != reason {
			t.Fatalf("%v, want %s", info, reason)
		}
		return failed, info.GetMetadata()
	}
	t.Run("unknown model", func(t *testing.T) {
		failed, metadata := fail(t, chat("nowhere", "Hi", nil), codes.NotFound, "MODEL_NOT_FOUND")
		if metadata["model"] != "nowhere" {
			t.Errorf("metadata %v", metadata)
		}
		if resource := detail[*errdetails.ResourceInfo](t, failed); resource.GetResourceName() != "nowhere" {
			t.Errorf("%v", resource)
		}
	})
	t.Run("long prompt", func(t *testing.T) {
		_, metadata := fail(t, chat("llamita", strings.Repeat("llama ", 5000), nil), codes.InvalidArgument, "CONTEXT_OVERFLOW")
		if metadata["prompt_tokens"] == "" || metadata["context_length"] == "" {
			t.Errorf("metadata %v", metadata)
		}
	})
	t.Run("field out of range", func(t *testing.T) {
		options := &punav1.RequestOptions{Sampling: &punav1.SamplingOptions{Temperature: pointer(float32(-5))}}
		failed, _ := fail(t, chat("llamita", "Hi", options), codes.InvalidArgument, "INVALID_REQUEST")
		violations := detail[*errdetails.BadRequest](t, failed).GetFieldViolations()
		if len(violations) != 1 || violations[0].GetField() != "options.sampling.temperature" {
			t.Errorf("%v", violations)
		}
	})
	t.Run("broken JSON", func(t *testing.T) {
		request := chat("llamita", "Hi", nil)
		request.Tools = []*punav1.Tool{{Name: "broken", ParametersJson: "{"}}
		failed, _ := fail(t, request, codes.InvalidArgument, "INVALID_REQUEST")
		violations := detail[*errdetails.BadRequest](t, failed).GetFieldViolations()
		if len(violations) != 1 || !strings.HasSuffix(violations[0].GetField(), "parameters_json") {
			t.Errorf("%v", violations)
		}
	})
}

func TestRetryInfo(t *testing.T) {
	t.Parallel()
	client := punav1.NewChatServiceClient(secure(t, variable(t, "PUNA_LIMITED_API_KEY")))
	call := func(ctx context.Context) error {
		_, err := client.Chat(ctx, chat("llamita", "Hi", exact))
		return err
	}
	if err := call(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	failed := expect(t, call(within(t, patience)), codes.ResourceExhausted)
	if info := detail[*errdetails.ErrorInfo](t, failed); info.GetReason() != "RATE_LIMITED" {
		t.Errorf("%v", info)
	}
	delay := detail[*errdetails.RetryInfo](t, failed).GetRetryDelay().AsDuration()
	if delay <= 0 || delay > time.Minute {
		t.Errorf("retry after %v", delay)
	}
	if quota := detail[*errdetails.QuotaFailure](t, failed); len(quota.GetViolations()) == 0 {
		t.Errorf("%v", quota)
	}
}
