//! Streamed chat with a tool, and structured output.

use std::collections::HashMap;

use puna_clients::v1::{
    ChatMessage, ChatRequest, OutputConstraint, RequestOptions, SamplingOptions, Tool, ToolCall,
    chat_service_client::ChatServiceClient, output_constraint::Kind,
};

use serde_json::{Value, json};

use crate::support::connect;

fn user(text: &str) -> ChatMessage {
    ChatMessage { role: "user".into(), content: text.into(), ..Default::default() }
}

fn greedy() -> RequestOptions {
    let sampling = SamplingOptions { temperature: Some(0.0), ..Default::default() };
    RequestOptions { sampling: Some(sampling), ..Default::default() }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Streams an answer; returns its text and its tool calls, after comparing these with what their deltas make.
async fn answer(request: ChatRequest) -> (String, Vec<ToolCall>) {
    let mut stream = ChatServiceClient::new(connect().await).stream_chat(request).await.unwrap().into_inner();
    let (mut text, mut calls, mut finished) = (String::new(), Vec::<ToolCall>::new(), false);
    let mut written = HashMap::<i32, String>::new();
    while let Some(part) = stream.message().await.unwrap() {
        assert!(!finished, "a message follows the last one");
        for delta in part.deltas {
            text += &delta.content;
            calls.extend(delta.tool_calls);
            for part in delta.tool_call_deltas {
                written.entry(part.index).or_default().push_str(&part.arguments_json);
            }
        }
        finished = part.done.is_some();
    }
    assert!(finished);
    for call in &calls {
        assert_eq!(parse(&written[&call.index]), parse(&call.arguments_json));
    }
    (text, calls)
}

#[tokio::test]
async fn a_streamed_chat_calls_a_tool_and_tells_its_result() {
    let tool = Tool {
        name: "get_weather".into(),
        description: "Get the weather of a city".into(),
        parameters_json: r#"{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}"#
            .into(),
        ..Default::default()
    };
    let mut request = ChatRequest {
        model: "llamita".into(),
        messages: vec![user("What is the weather in Paris?")],
        tools: vec![tool],
        tool_call_deltas: true,
        options: Some(greedy()),
        ..Default::default()
    };
    let (text, calls) = answer(request.clone()).await;
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!(call.name, "get_weather");
    assert_eq!(parse(&call.arguments_json), json!({"city": "Paris"}));
    let result = ChatMessage {
        role: "tool".into(),
        content: r#"{"temperature": 21, "sky": "sunny"}"#.into(),
        tool_name: call.name.clone(),
        tool_call_id: call.id.clone(),
        ..Default::default()
    };
    let assistant = ChatMessage { role: "assistant".into(), content: text, tool_calls: calls, ..Default::default() };
    request.messages.extend([assistant, result]);
    let (text, calls) = answer(request).await;
    assert!(calls.is_empty(), "{calls:?}");
    assert!(text.contains("21"), "{text}");
}

#[tokio::test]
async fn structured_output_has_the_schema() {
    let schema = r#"{"type": "object", "required": ["capital", "sure"],
        "properties": {"capital": {"enum": ["Rome", "Paris", "Oslo"]}, "sure": {"type": "boolean"}}}"#;
    let options = RequestOptions {
        constraint: Some(OutputConstraint { kind: Some(Kind::JsonSchema(schema.into())) }),
        ..greedy()
    };
    let (text, _) = answer(ChatRequest {
        model: "llamita".into(),
        messages: vec![user("What is the capital of France?")],
        options: Some(options),
        ..Default::default()
    })
    .await;
    let found = parse(&text);
    assert_eq!(found.as_object().unwrap().len(), 2, "{found}");
    assert_eq!(found["capital"], "Paris");
    assert!(found["sure"].is_boolean(), "{found}");
}
