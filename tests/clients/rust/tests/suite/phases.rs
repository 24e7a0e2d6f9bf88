//! Every phase of a request, ended by its deadline and by its client: the status is right and the slot is free.

use std::time::Duration;

use puna_clients::v1::{StreamGenerateResponse, generate_service_client::GenerateServiceClient, progress};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tonic::{Code, Request, Status, Streaming, transport::Channel};

use crate::support::{connect, generate, scripted, wait_for_requests};

/// Held by each test that uses a model's only slot.
static SLOT: Mutex<()> = Mutex::const_new(());

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Queue,
    Load,
    Prefill,
    Decode,
}
use Phase::*;

impl Phase {
    /// Returns the model whose requests can be held in the phase.
    fn model(self) -> &'static str {
        if self == Load { "stuck" } else { "phases" }
    }
}

type Stream = Streaming<StreamGenerateResponse>;

async fn start(channel: &Channel, model: &str, prompt: &str, deadline: Option<Duration>) -> Result<Stream, Status> {
    let mut request = Request::new(scripted(model, prompt));
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
            Some(progress::Phase::Prefill(_)) => Some(Prefill),
            None if !part.deltas.is_empty() => Some(Decode),
            None => last,
        };
        if until.is_some() && last == until {
            break;
        }
    }
    Ok(last)
}

/// Returns a prompt that stays in a phase, and the stream that holds the slot in the case of the queue.
async fn prepare(channel: &Channel, phase: Phase) -> (&'static str, Option<Stream>) {
    match phase {
        Queue => {
            let mut first = start(channel, phase.model(), "one @wait 60", None).await.unwrap();
            assert_eq!(read(&mut first, Some(Decode)).await.unwrap(), Some(Decode));
            ("hello", Some(first))
        }
        Load => ("hello", None),
        Prefill => ("@prefill 600 0.1 hello", None),
        Decode => ("one @wait 60", None),
    }
}

/// Asserts that nothing is left of the request and that the slot serves the next one.
async fn assert_free(channel: &Channel, phase: Phase, first: Option<Stream>) {
    let limit = Duration::from_secs(5);
    if first.is_some() {
        timeout(limit, wait_for_requests(channel, phase.model(), 1)).await.expect("the request is left");
        drop(first);
    }
    timeout(limit, wait_for_requests(channel, phase.model(), 0)).await.expect("a request is left");
    if phase != Load {
        assert_eq!(generate(channel, phase.model(), "hello").await.unwrap().text, "hello");
    }
}

async fn deadline_passes_in(phase: Phase) {
    let _slot = SLOT.lock().await;
    let channel = connect().await;
    let (prompt, first) = prepare(&channel, phase).await;
    let (begin, deadline) = (Instant::now(), Duration::from_secs(3));
    let mut stream = start(&channel, phase.model(), prompt, Some(deadline)).await.unwrap();
    assert_eq!(read(&mut stream, Some(phase)).await.unwrap(), Some(phase));
    let error = read(&mut stream, None).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    assert!(begin.elapsed() < deadline * 2, "{:?}", begin.elapsed());
    assert_free(&channel, phase, first).await;
}

async fn cancelled_in(phase: Phase) {
    let _slot = SLOT.lock().await;
    let channel = connect().await;
    let (prompt, first) = prepare(&channel, phase).await;
    let mut stream = start(&channel, phase.model(), prompt, None).await.unwrap();
    assert_eq!(read(&mut stream, Some(phase)).await.unwrap(), Some(phase));
    drop(stream);
    assert_free(&channel, phase, first).await;
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
