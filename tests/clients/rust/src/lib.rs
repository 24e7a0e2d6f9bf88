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
/// tonic has neither retries nor wait-for-ready. The call is made again after UNAVAILABLE, after an error with RetryInfo,
/// and after a failure of the connection, which a server that drains closes while a call is on its way to it. The pause
/// is that of RetryInfo, or doubles from 50 ms to a second. For a stream, `call` should also receive the first message: most
/// failures come in place of it.
pub async fn retry<T, F>(within: Duration, mut call: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    let end = Instant::now() + within;
    let mut pause = Duration::from_millis(50);
    loop {
        let error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let asked = error.get_details_retry_info().and_then(|info| info.retry_delay);
        let again = error.code() == Code::Unavailable || error.source().is_some() || asked.is_some();
        let wait = asked.unwrap_or(pause);
        if !again || Instant::now() + wait >= end {
            return Err(error);
        }
        sleep(wait).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn full(seconds: u64) -> Status {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(seconds)));
        Status::with_error_details(Code::ResourceExhausted, "the queue is full", details)
    }

    #[tokio::test]
    async fn the_pause_is_that_of_the_server() {
        let (begin, mut attempts) = (Instant::now(), 0);
        let answer = retry(Duration::from_secs(5), || {
            attempts += 1;
            let answer = if attempts < 2 { Err(full(1)) } else { Ok(()) };
            async { answer }
        });
        assert!(answer.await.is_ok());
        assert!(begin.elapsed() >= Duration::from_secs(1));
    }

    #[tokio::test]
    async fn what_cannot_succeed_in_time_fails_at_once() {
        let begin = Instant::now();
        assert!(retry(Duration::from_secs(5), async || Err::<(), _>(full(60))).await.is_err());
        assert!(retry(Duration::from_secs(5), async || Err::<(), _>(Status::not_found("no model"))).await.is_err());
        assert!(begin.elapsed() < Duration::from_secs(1));
    }
}
