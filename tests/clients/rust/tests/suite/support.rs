//! Connections, servers of a test's own, and requests to the models of the scripted backend.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use puna_clients::v1::{
    GenerateRequest, GenerateResponse, ListRequestsRequest, RequestOptions, generate_request::Prompt,
    generate_service_client::GenerateServiceClient, server_service_client::ServerServiceClient,
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

/// Time that a step may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Returns a variable of the harness.
pub fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make test-clients CLIENT=rust`"))
}

/// Returns the endpoint of an address without TLS.
pub fn endpoint(address: &str) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).unwrap()
}

/// Connects to the shared server without TLS and keys.
pub async fn connect() -> Channel {
    endpoint(&variable("PUNA_ADDRESS")).connect().await.unwrap()
}

/// Returns a request for the scripted backend, whose prompt is a list of commands.
pub fn scripted(model: &str, prompt: &str) -> GenerateRequest {
    GenerateRequest { model: model.into(), prompt: Some(Prompt::Text(prompt.into())), ..Default::default() }
}

/// Returns the same request without progress messages.
pub fn without_progress(request: GenerateRequest) -> GenerateRequest {
    let options = RequestOptions { omit_progress: true, ..Default::default() };
    GenerateRequest { options: Some(options), ..request }
}

/// Makes a unary call of Generate.
pub async fn generate(channel: &Channel, model: &str, prompt: &str) -> Result<GenerateResponse, Status> {
    let mut request = Request::new(scripted(model, prompt));
    request.set_timeout(PATIENCE);
    let answer = GenerateServiceClient::new(channel.clone()).generate(request).await?;
    Ok(answer.into_inner())
}

/// Returns the number of requests that wait or run, of one model.
pub async fn requests(channel: &Channel, model: &str) -> usize {
    let request = ListRequestsRequest { model: model.into(), ..Default::default() };
    let listed = ServerServiceClient::new(channel.clone()).list_requests(request).await;
    listed.unwrap().into_inner().requests.len()
}

/// Waits until a number of requests of a model wait or run.
pub async fn wait_for_requests(channel: &Channel, model: &str, count: usize) {
    let wait = async {
        while requests(channel, model).await != count {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the requests did not change in time");
}

/// A server of a test's own. It is killed when it is dropped.
pub struct Server {
    pub address: String,
    process: Child,
}

impl Server {
    /// Starts a server and waits until it is ready. Port 0 chooses a free one.
    pub async fn start(address: &str) -> Server {
        Server::start_with(address, &[]).await
    }

    /// Starts a server with settings, which are environment variables.
    pub async fn start_with(address: &str, settings: &[(&str, &str)]) -> Server {
        let mut command = Command::new(variable("PUNA_SERVE"));
        let mut process = command.arg(address).envs(settings.iter().copied()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let read = spawn_blocking(move || {
            let mut greeting = String::new();
            output.read_line(&mut greeting).map(|_| greeting)
        });
        let greeting = timeout(PATIENCE, read).await.expect("the server did not start in time").unwrap().unwrap();
        let (_, address) = greeting.split_once("gRPC on ").expect("the server did not start");
        let address = address.split_whitespace().next().unwrap().into();
        Server { address, process }
    }

    /// Asks the server to end, as a supervisor does.
    pub fn terminate(&self) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Waits for the end; says whether the server ended well.
    pub async fn ended(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.process.try_wait().unwrap() {
                Some(status) => return status.success(),
                None => assert!(Instant::now() < end, "the server did not end in time"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
