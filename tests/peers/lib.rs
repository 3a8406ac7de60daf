//! What others build on, at its best settings, carrying the house's frames: gRPC and WebSocket, both over TLS 1.3 with
//! certificates on both sides.
#![forbid(unsafe_code)]

mod asked;
mod grpc;
mod websocket;

pub use asked::{Asked, Messages};
pub use grpc::Grpc;
pub use websocket::WebSocket;

use std::process::ExitCode;

use oqto_tests::bench::run;

/// Is a peer's server, when the command line asks for one; `None`: the bench goes on.
#[must_use]
pub fn serve_if_asked() -> Option<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--grpc", dir] => run(grpc::serve(dir.into())),
        ["--websocket", dir] => run(websocket::serve(dir.into())),
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}
