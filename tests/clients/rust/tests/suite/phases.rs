//! Every phase of a request, ended by its deadline and by its client: the status is right and the slot is free.

use std::time::Duration;

use puna_clients::v1::{
    UnloadModelRequest, generate_service_client::GenerateServiceClient, models_service_client::ModelsServiceClient,
    progress,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tonic::{Code, Request, Status, Streaming, transport::Channel};

use crate::support::{PATIENCE, connect, generate, scripted, wait_for_requests};

/// Has one slot. Loading it takes 1.5 seconds.
const MODEL: &str = "phases";
/// Held by each test that uses the slot.
static SLOT: Mutex<()> = Mutex::const_new(());

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Queue,
    Load,
    Prefill,
    Decode,
}
use Phase::*;

type Stream = Streaming<puna_clients::v1::StreamGenerateResponse>;

async fn start(channel: &Channel, prompt: &str, deadline: Option<Duration>) -> Result<Stream, Status> {
    let mut request = Request::new(scripted(MODEL, prompt));
    if let Some(deadline) = deadline {
        request.set_timeout(deadline);
    }
    let stream = GenerateServiceClient::new(channel.clone()).stream_generate(request).await?;
    Ok(stream.into_inner())
}

/// Reads until a phase is seen, or to the end if it is None; returns the phase that was seen last.
async fn read(stream: &mut Stream, until: Option<Phase>) -> Result<Option<Phase>, Status> {
    let mut last = None;
    while let Some(part) = stream.message().await? {
        last = match part.progress.and_then(|progress| progress.phase) {
            Some(progress::Phase::Queued(_)) => Some(Queue),
            Some(progress::Phase::Loading(_)) => Some(Load),
            Some(progress::Phase::PromptEval(_)) => Some(Prefill),
            None if !part.deltas.is_empty() => Some(Decode),
            None => last,
        };
        if until.is_some() && last == until {
            break;
        }
    }
    Ok(last)
}

/// Prepares the model for a phase. Returns the prompt that stays in it, and the stream that holds the slot, if one does.
async fn prepare(channel: &Channel, phase: Phase) -> (&'static str, Option<Stream>) {
    if phase == Load {
        let request = UnloadModelRequest { name: MODEL.into() };
        ModelsServiceClient::new(channel.clone()).unload_model(request).await.unwrap();
    } else {
        generate(channel, MODEL, "hello").await.unwrap();
    }
    match phase {
        Queue => {
            let mut first = start(channel, "one @wait 60", None).await.unwrap();
            assert_eq!(read(&mut first, Some(Decode)).await.unwrap(), Some(Decode));
            ("hello", Some(first))
        }
        Load => ("hello", None),
        Prefill => ("@prefill 600 0.1 hello", None),
        Decode => ("one @wait 60", None),
    }
}

/// Asserts that nothing is left of earlier requests and that the slot serves the next one.
async fn assert_free(channel: &Channel) {
    timeout(Duration::from_secs(5), wait_for_requests(channel, MODEL, 0)).await.expect("a request is left");
    let answer = timeout(PATIENCE, generate(channel, MODEL, "hello")).await.unwrap().unwrap();
    assert_eq!(answer.text, "hello");
}

async fn deadline_passes_in(phase: Phase) {
    let _slot = SLOT.lock().await;
    let channel = connect().await;
    let (prompt, first) = prepare(&channel, phase).await;
    let begin = Instant::now();
    // A load of 1.5 seconds cannot end before its deadline. On a busy machine, the call may not hear of it either.
    let deadline = Duration::from_secs(if phase == Load { 1 } else { 3 });
    let mut stream = start(&channel, prompt, Some(deadline)).await;
    if phase != Load {
        assert_eq!(read(stream.as_mut().unwrap(), Some(phase)).await.unwrap(), Some(phase));
    }
    let error = match stream {
        Ok(mut stream) => read(&mut stream, None).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    assert!(begin.elapsed() < deadline + Duration::from_secs(3), "{:?}", begin.elapsed());
    drop(first);
    assert_free(&channel).await;
}

async fn cancelled_in(phase: Phase) {
    let _slot = SLOT.lock().await;
    let channel = connect().await;
    let (prompt, first) = prepare(&channel, phase).await;
    let mut stream = start(&channel, prompt, None).await.unwrap();
    assert_eq!(read(&mut stream, Some(phase)).await.unwrap(), Some(phase));
    drop(stream);
    if first.is_some() {
        wait_for_requests(&channel, MODEL, 1).await;
        drop(first);
    }
    assert_free(&channel).await;
}

#[tokio::test]
async fn a_deadline_passes_in_the_queue() {
    deadline_passes_in(Queue).await;
}

#[tokio::test]
async fn a_deadline_passes_during_the_load() {
    deadline_passes_in(Load).await;
}

#[tokio::test]
async fn a_deadline_passes_during_prefill() {
    deadline_passes_in(Prefill).await;
}

#[tokio::test]
async fn a_deadline_passes_during_decoding() {
    deadline_passes_in(Decode).await;
}

#[tokio::test]
async fn a_client_cancels_in_the_queue() {
    cancelled_in(Queue).await;
}

#[tokio::test]
async fn a_client_cancels_during_the_load() {
    cancelled_in(Load).await;
}

#[tokio::test]
async fn a_client_cancels_during_prefill() {
    cancelled_in(Prefill).await;
}

#[tokio::test]
async fn a_client_cancels_during_decoding() {
    cancelled_in(Decode).await;
}
