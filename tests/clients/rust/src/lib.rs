//! What a service in Rust adds to the generated code: a call that is repeated while no server takes it.

use std::{error::Error, future::Future, time::Duration};

use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Messages and clients of the package `puna.v1`.
pub mod v1 {
    tonic::include_proto!("puna.v1");
}

/// Makes a call until a server has answered it or the time is over.
///
/// tonic has neither retries nor wait-for-ready. The call is made again after UNAVAILABLE, and after a failure of the
/// connection, which a server that drains closes while a call is on its way to it. The pause is that of the server's
/// RetryInfo, or doubles from 50 ms to a second. For a stream, `call` should also receive the first message: most
/// failures come in place of it.
pub async fn retry<T, F>(within: Duration, mut call: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    let end = Instant::now() + within;
    let mut pause = Duration::from_millis(50);
    loop {
        let error = match call().await {
            Err(error) if error.code() == Code::Unavailable || error.source().is_some() => error,
            done => return done,
        };
        let asked = error.get_details_retry_info().and_then(|info| info.retry_delay);
        let wait = asked.unwrap_or(pause);
        if Instant::now() + wait >= end {
            return Err(error);
        }
        sleep(wait).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}
