//! Connections: pings over a silence, TLS with an API key, and a server that is not there yet.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use puna_clients::{
    retry,
    v1::{GetServerInfoRequest, server_service_client::ServerServiceClient},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::support::{PATIENCE, Server, endpoint, generate, variable};

/// Longer than the 40 seconds after which a server that counts pings ends the connection.
const SILENCE: Duration = Duration::from_secs(45);

/// Sends an API key with each call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Connects to the server with TLS; returns the channel, and an interceptor for a key.
pub async fn secure(key: &str) -> (Channel, Bearer) {
    let authority = Certificate::from_pem(std::fs::read(variable("PUNA_CA")).unwrap());
    let endpoint = Endpoint::from_shared(format!("https://{}", variable("PUNA_SECURE_ADDRESS"))).unwrap();
    let tls = ClientTlsConfig::new().ca_certificate(authority);
    let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
    (channel, Bearer(format!("Bearer {key}").parse().unwrap()))
}

/// Forwards connections to a server; returns an address and the number of connections.
pub async fn forward(server: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    (address, count)
}

async fn pinging() -> (Channel, Arc<AtomicUsize>) {
    let (address, connections) = forward(variable("PUNA_ADDRESS")).await;
    let endpoint = endpoint(&address)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    (endpoint.connect().await.unwrap(), connections)
}

#[tokio::test]
async fn pings_keep_a_silent_call_alive() {
    let (channel, connections) = pinging().await;
    let prompt = format!("@wait {} hello", SILENCE.as_secs());
    let mut request = Request::new(crate::support::scripted("silent", &prompt));
    request.set_timeout(SILENCE + PATIENCE);
    let mut client = puna_clients::v1::generate_service_client::GenerateServiceClient::new(channel);
    assert_eq!(client.generate(request).await.unwrap().into_inner().text, "hello");
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn pings_keep_an_idle_connection_open() {
    let (channel, connections) = pinging().await;
    sleep(SILENCE).await;
    assert_eq!(generate(&channel, "steady", "hello").await.unwrap().text, "hello");
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn tls_and_a_key_open_the_server() {
    let (channel, bearer) = secure(&variable("PUNA_API_KEY")).await;
    let mut server = ServerServiceClient::with_interceptor(channel, bearer);
    let info = server.get_server_info(GetServerInfoRequest {}).await.unwrap().into_inner();
    assert!(info.backends.iter().any(|backend| backend.name == "llama_cpp"));
}

#[tokio::test]
async fn a_wrong_key_and_an_unknown_authority_are_refused() {
    let (channel, bearer) = secure("puna_0123456789ab_wrong").await;
    let mut server = ServerServiceClient::with_interceptor(channel.clone(), bearer);
    let error = server.get_server_info(GetServerInfoRequest {}).await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated, "{error}");
    let error = ServerServiceClient::new(channel).get_server_info(GetServerInfoRequest {}).await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated, "{error}");
    let endpoint = Endpoint::from_shared(format!("https://{}", variable("PUNA_SECURE_ADDRESS"))).unwrap();
    assert!(endpoint.tls_config(ClientTlsConfig::new()).unwrap().connect().await.is_err());
}

#[tokio::test]
async fn a_call_waits_for_a_server_that_starts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let channel = endpoint(&address).connect_lazy();
    let call = async || ServerServiceClient::new(channel.clone()).get_server_info(GetServerInfoRequest {}).await;
    assert_eq!(call().await.unwrap_err().code(), Code::Unavailable);
    let start = async {
        sleep(Duration::from_millis(500)).await;
        Server::start(&address).await
    };
    let (answer, _server) = tokio::join!(retry(PATIENCE, call), start);
    assert!(!answer.unwrap().into_inner().version.is_empty());
}
