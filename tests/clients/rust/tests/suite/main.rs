//! A Puna server as a service in Rust uses it. `make test-clients CLIENT=rust` starts the servers and runs this suite.

mod balancing;
mod chat;
mod connections;
mod embed;
mod errors;
mod phases;
mod pull;
mod retries;
mod support;
