package clients

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	punav1 "puna.dev/clients/go/puna/v1"
)

// phase returns which phase of a request a message tells of.
func phase(part *punav1.StreamGenerateResponse) string {
	switch {
	case len(part.GetDeltas()) > 0:
		return "decode"
	case part.GetProgress().GetPrefill() != nil:
		return "prefill"
	case part.GetProgress().GetLoading() != nil:
		return "load"
	case part.GetProgress().GetQueued() != nil:
		return "queue"
	}
	return ""
}

// listed returns how many requests of a model the server has.
func listed(t *testing.T, connection *grpc.ClientConn, model string) int {
	t.Helper()
	request := &punav1.ListRequestsRequest{Model: model}
	response, err := punav1.NewServerServiceClient(connection).ListRequests(within(t, patience), request)
	if err != nil {
		t.Fatal(err)
	}
	return len(response.GetRequests())
}

// until starts a call and returns what ends it once it has reached a phase.
func until(t *testing.T, connection *grpc.ClientConn, request *punav1.GenerateRequest, want string) context.CancelFunc {
	t.Helper()
	ctx, cancel := context.WithCancel(within(t, patience))
	stream, err := punav1.NewGenerateServiceClient(connection).StreamGenerate(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	for {
		part, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if phase(part) == want {
			return cancel
		}
	}
}

// loading is held by tests that load a model. Models are loaded one after the other, so a load waits in the queue for
// that of another test.
var loading sync.Mutex

// The models have one slot, so the cases run one after the other.
func TestEndOfCallInEachPhase(t *testing.T) {
	t.Parallel()
	connection := plain(t)
	words := strings.Builder{} // which differ, since the server ends an answer that repeats one word
	for number := range 100 {
		fmt.Fprintf(&words, "w%d @wait .1 ", number)
	}
	cases := []struct{ phase, model, words string }{
		{"queue", "phases", "never"},
		{"load", "stuck", "never"},
		{"prefill", "phases", "@prefill 100 .1"},
		{"decode", "phases", words.String()},
	}
	for _, each := range cases {
		for _, code := range []codes.Code{codes.DeadlineExceeded, codes.Canceled} {
			t.Run(each.phase+"/"+code.String(), func(t *testing.T) {
				request := prompt(each.model, each.words)
				gone := func() bool { return listed(t, connection, each.model) == 0 }
				switch each.phase {
				case "queue":
					release := until(t, connection, prompt("phases", "started @wait 60"), "decode")
					endIn(t, connection, request, each.phase, code)
					eventually(t, "only the other request is listed", func() bool { return listed(t, connection, each.model) == 1 })
					release()
				case "load":
					loading.Lock()
					defer loading.Unlock()
					endIn(t, connection, request, each.phase, code)
					eventually(t, "nothing is listed", gone)
					until(t, connection, request, "load")()
				default:
					endIn(t, connection, request, each.phase, code)
				}
				eventually(t, "nothing is listed", gone)
				text, err := generate(within(t, patience), connection, prompt("phases", "free"))
				if err != nil || text != "free" {
					t.Fatalf("the slot is not free: %q %v", text, err)
				}
			})
		}
	}
}

// endIn starts a call that ends in a phase, and checks its status.
func endIn(t *testing.T, connection *grpc.ClientConn, request *punav1.GenerateRequest, want string, code codes.Code) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	if code == codes.DeadlineExceeded {
		ctx, cancel = context.WithTimeout(t.Context(), 4*time.Second)
	}
	defer cancel()
	stream, err := punav1.NewGenerateServiceClient(connection).StreamGenerate(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	err = all(stream, func(part *punav1.StreamGenerateResponse) {
		last = phase(part)
		if last == want && code == codes.Canceled {
			cancel()
		}
	})
	expect(t, err, code)
	if last != want {
		t.Fatalf("the call ended in the phase %q, not %q", last, want)
	}
}
