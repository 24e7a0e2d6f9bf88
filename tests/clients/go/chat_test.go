package clients

import (
	"io"
	"testing"
	"time"

	punav1 "puna.dev/clients/go/puna/v1"
)

func TestStreamedChat(t *testing.T) {
	chat := punav1.NewChatServiceClient(dial(t))
	request := &punav1.ChatRequest{Model: "llamita", Messages: []*punav1.Message{{Role: "user", Content: "What is 3 + 4?"}}}
	stream, err := chat.StreamChat(within(t, time.Minute), request)
	if err != nil {
		t.Fatal(err)
	}
	for {
		part, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Log(part)
	}
}
