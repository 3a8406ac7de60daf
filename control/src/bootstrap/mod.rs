//! The private runner of this machine: found when it runs, started when it does not.
//!
//! A running one is found by a file and believed by its certificate. A starting one asks for its certificate on its
//! standard output and gets it on its standard input; its key never leaves it. Two that start at once start one.
//! Every line and every wait is bounded.

mod find;
mod local;
mod program;
mod start;

pub(crate) use find::found;
pub use local::LocalError;
pub(crate) use local::{Place, is_root};
pub use start::StartError;
