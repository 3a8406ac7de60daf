//! The dialect of the pi coding agent: `pi --mode rpc`, one JSON object a line both ways.
//!
//! Known from recorded sessions of 0.87.1 and, where noted, from what 0.74 does differently. `wire` has the shapes,
//! `message` and `answer` turn content and answers into the protocol's, `command` says what a command is called
//! here, `translate` keeps the little state that lines depend on, `update` reads the pieces of messages and `ui`
//! what extensions show and ask.
//!
//! What only pi knows travels as `status` lines whose keys begin with `x-pi-`, as `x` parts and as metadata.

mod answer;
mod command;
mod message;
mod translate;
mod ui;
mod update;
mod wire;

pub use translate::Pi;
