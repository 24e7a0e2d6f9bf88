package clients

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	punav1 "puna.dev/clients/go/puna/v1"
)

var weather = []*punav1.Tool{{
	Name:           "get_weather",
	Description:    "Get the weather of a city",
	ParametersJson: `{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}`,
}}

// exact makes answers the same each time.
var exact = &punav1.RequestOptions{
	Sampling: &punav1.SamplingOptions{Temperature: pointer(float32(0))},
	Thinking: punav1.ThinkingLevel_THINKING_LEVEL_OFF,
}

// answer streams a chat and joins its deltas to a message.
func answer(t *testing.T, client punav1.ChatServiceClient, messages []*punav1.ChatMessage) (*punav1.ChatMessage, *punav1.Finish) {
	t.Helper()
	request := &punav1.ChatRequest{Model: "llamita", Messages: messages, Tools: weather, Options: exact, ToolCallDeltas: true}
	stream, err := client.StreamChat(within(t, patience), request)
	if err != nil {
		t.Fatal(err)
	}
	message, finish := &punav1.ChatMessage{Role: "assistant"}, (*punav1.Finish)(nil)
	written := map[int32]string{}
	err = all(stream, func(part *punav1.StreamChatResponse) {
		for _, delta := range part.GetDeltas() {
			message.Content += delta.GetContent()
			message.ToolCalls = append(message.ToolCalls, delta.GetToolCalls()...)
			for _, part := range delta.GetToolCallDeltas() {
				written[part.GetIndex()] += part.GetArgumentsJson()
			}
		}
		if done := part.GetDone(); done != nil {
			finish = done.GetFinish()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range message.ToolCalls {
		var whole, joined any
		if err := errors.Join(json.Unmarshal([]byte(call.GetArgumentsJson()), &whole), json.Unmarshal([]byte(written[call.GetIndex()]), &joined)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(whole, joined) {
			t.Errorf("the deltas of a call make %v, the call has %v", joined, whole)
		}
	}
	return message, finish
}

func TestStreamedChatWithTool(t *testing.T) {
	t.Parallel()
	client := punav1.NewChatServiceClient(plain(t))
	messages := []*punav1.ChatMessage{{Role: "user", Content: "What is the weather in Oslo?"}}
	call, finish := answer(t, client, messages)
	if len(call.ToolCalls) != 1 || finish.GetReason() != punav1.FinishReason_FINISH_REASON_TOOL_CALLS {
		t.Fatalf("the model calls no tool: %v %v", call, finish)
	}
	var arguments struct{ City string }
	if err := json.Unmarshal([]byte(call.ToolCalls[0].GetArgumentsJson()), &arguments); err != nil {
		t.Fatal(err)
	}
	if name := call.ToolCalls[0].GetName(); name != "get_weather" || arguments.City != "Oslo" {
		t.Fatalf("called %s(%v)", name, arguments)
	}
	result := &punav1.ChatMessage{Role: "tool", ToolName: "get_weather", ToolCallId: call.ToolCalls[0].GetId(), Content: "18 degrees and sunny"}
	told, finish := answer(t, client, append(messages, call, result))
	if !strings.Contains(told.GetContent(), "18 degrees") || finish.GetReason() != punav1.FinishReason_FINISH_REASON_STOP {
		t.Fatalf("the model does not tell the result: %v %v", told, finish)
	}
	if usage := finish.GetUsage(); usage.GetPromptTokens() == 0 || usage.GetOutputTokens() == 0 {
		t.Errorf("no usage: %v", usage)
	}
}

func TestStructuredOutput(t *testing.T) {
	t.Parallel()
	schema := `{"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]}`
	request := &punav1.ChatRequest{
		Model:    "llamita",
		Messages: []*punav1.ChatMessage{{Role: "user", Content: "Ada is 36 years old. Answer in JSON."}},
		Options: &punav1.RequestOptions{
			Sampling:   &punav1.SamplingOptions{Temperature: pointer(float32(0)), MaxOutputTokens: pointer(int32(200))},
			Thinking:   punav1.ThinkingLevel_THINKING_LEVEL_OFF,
			Constraint: &punav1.OutputConstraint{Kind: &punav1.OutputConstraint_JsonSchema{JsonSchema: schema}},
		},
	}
	response, err := punav1.NewChatServiceClient(plain(t)).Chat(within(t, patience), request)
	if err != nil {
		t.Fatal(err)
	}
	var person struct {
		Name *string
		Age  *int
	}
	if err := json.Unmarshal([]byte(response.GetMessage().GetContent()), &person); err != nil {
		t.Fatalf("%q: %v", response.GetMessage().GetContent(), err)
	}
	if person.Name == nil || person.Age == nil {
		t.Errorf("required properties are missing: %q", response.GetMessage().GetContent())
	}
}

func TestPackedEmbeddings(t *testing.T) {
	t.Parallel()
	client := punav1.NewEmbedServiceClient(plain(t))
	embed := func(encoding punav1.VectorEncoding) *punav1.EmbedResponse {
		request := &punav1.EmbedRequest{Model: "llamita-embed", Inputs: []string{"Why is the sky blue?", "A herd of llamas"}, Encoding: encoding}
		response, err := client.Embed(within(t, patience), request)
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
	packed := embed(punav1.VectorEncoding_VECTOR_ENCODING_FLOAT32_LE)
	listed := embed(punav1.VectorEncoding_VECTOR_ENCODING_FLOAT_LIST)
	if len(packed.GetVectors()) != 2 || packed.GetEncoding() != punav1.VectorEncoding_VECTOR_ENCODING_FLOAT32_LE {
		t.Fatalf("%d vectors, %v", len(packed.GetVectors()), packed.GetEncoding())
	}
	for i, vector := range packed.GetVectors() {
		values := make([]float32, len(vector.GetPacked())/4)
		if _, err := binary.Decode(vector.GetPacked(), binary.LittleEndian, values); err != nil {
			t.Fatal(err)
		}
		norm := 0.0
		for _, value := range values {
			norm += float64(value) * float64(value)
		}
		if len(values) != 128 || math.Abs(norm-1) > 1e-4 {
			t.Errorf("vector %d has %d values and the squared norm %f", i, len(values), norm)
		}
		if !slices.Equal(values, listed.GetVectors()[i].GetValues()) {
			t.Errorf("vector %d depends on the encoding", i)
		}
	}
}
