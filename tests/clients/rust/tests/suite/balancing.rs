//! Two servers behind one channel, of which one ends while it serves, and connections that the server ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use puna_clients::{
    retry,
    v1::{StreamGenerateResponse, generate_service_client::GenerateServiceClient},
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::{Status, Streaming, transport::Channel};

use crate::connections::forward;
use crate::support::{PATIENCE, Server, endpoint, generate, requests, scripted, without_progress};

const CLIENTS: usize = 8;

type Stream = Streaming<StreamGenerateResponse>;

/// Begins an answer of three words; returns the first message, and the stream of the others.
async fn begin(channel: &Channel) -> Result<(Option<StreamGenerateResponse>, Stream), Status> {
    let request = without_progress(scripted("steady", "one @wait 0.05 two @wait 0.05 three"));
    let mut stream = GenerateServiceClient::new(channel.clone()).stream_generate(request).await?.into_inner();
    Ok((stream.message().await?, stream))
}

async fn stream(channel: &Channel) -> Result<String, Status> {
    let (first, mut stream) = retry(PATIENCE, || begin(channel)).await?;
    let (mut text, mut part) = (String::new(), first);
    while let Some(message) = part {
        text.extend(message.deltas.into_iter().map(|delta| delta.text));
        part = stream.message().await?;
    }
    Ok(text)
}

/// Calls that follow each other without a pause.
struct Clients {
    done: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<usize>>,
}

impl Clients {
    fn start(channel: &Channel) -> Clients {
        let done = Arc::new(AtomicBool::new(false));
        let tasks = (0..CLIENTS).map(|_| {
            let (channel, done) = (channel.clone(), done.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(stream(&channel).await.unwrap(), "onetwothree");
                    count += 1;
                }
                count
            })
        });
        Clients { tasks: tasks.collect(), done }
    }

    /// Waits for the last calls; fails if one of all has failed, or if a client has made none.
    async fn stop(self) {
        self.done.store(true, Ordering::Relaxed);
        for task in self.tasks {
            assert!(task.await.unwrap() > 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_one_of_two_servers_drains() {
    let (mut one, other) = tokio::join!(Server::start("127.0.0.1:0"), Server::start("127.0.0.1:0"));
    let direct = [&one, &other].map(|server| endpoint(&server.address).connect_lazy());
    for channel in &direct {
        generate(channel, "steady", "hello").await.unwrap();
    }
    let channel = Channel::balance_list([&one, &other].map(|server| endpoint(&server.address)).into_iter());
    let clients = Clients::start(&channel);
    let both = async {
        while requests(&direct[0], "steady").await == 0 || requests(&direct[1], "steady").await == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, both).await.expect("one server gets no calls");
    one.terminate();
    assert!(one.ended().await);
    sleep(Duration::from_secs(1)).await;
    clients.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_connections_reach_their_age() {
    let settings = [("PUNA_CONNECTION_AGE", "1s"), ("PUNA_CONNECTION_AGE_GRACE", "20s")];
    let server = Server::start_with("127.0.0.1:0", &settings).await;
    let (address, connections) = forward(server.address.clone()).await;
    let clients = Clients::start(&endpoint(&address).connect().await.unwrap());
    let third = async {
        while connections.load(Ordering::Relaxed) < 3 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, third).await.expect("the client keeps its connection");
    clients.stop().await;
}
