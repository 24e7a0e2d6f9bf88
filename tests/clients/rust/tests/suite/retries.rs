//! Calls whose first two attempts end with the host of the model. The server itself makes the second.

use std::{env, fs, process};

use puna_clients::{
    retry,
    v1::{GenerateRequest, StreamGenerateResponse, generate_service_client::GenerateServiceClient},
};
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::support::{PATIENCE, Server, endpoint, generate, scripted, without_progress};

/// Begins a stream; returns the first message, and the stream of the others.
async fn begin(
    channel: &Channel,
    request: &GenerateRequest,
) -> Result<(StreamGenerateResponse, Streaming<StreamGenerateResponse>), Status> {
    let mut stream = GenerateServiceClient::new(channel.clone()).stream_generate(request.clone()).await?.into_inner();
    let first = stream.message().await?.expect("the stream is empty");
    Ok((first, stream))
}

#[tokio::test]
async fn calls_are_repeated_after_their_host_has_ended() {
    let server = Server::start("127.0.0.1:0").await;
    let channel = endpoint(&server.address).connect().await.unwrap();
    let marks = ["unary", "stream", "once"].map(|name| {
        ["first", "second"].map(|attempt| env::temp_dir().join(format!("crashed-{}-{name}-{attempt}", process::id())))
    });
    let [unary, stream, once] = marks.each_ref().map(|[first, second]| {
        format!("@crash_once {} @crash_once {} hello", first.display(), second.display())
    });

    assert_eq!(generate(&channel, "steady", &once).await.unwrap_err().code(), Code::Unavailable);

    let answer = retry(PATIENCE, || generate(&channel, "steady", &unary)).await;
    assert_eq!(answer.unwrap().text, "hello");

    let request = without_progress(scripted("steady", &stream));
    let (first, mut rest) = retry(PATIENCE, || begin(&channel, &request)).await.unwrap();
    assert_eq!(first.deltas[0].text, "hello");
    while let Some(part) = rest.message().await.unwrap() {
        assert!(part.deltas.is_empty());
    }
    for mark in marks.iter().flatten() {
        fs::remove_file(mark).expect("the host has not crashed");
    }
}
