//! The Agent Client Protocol where no recording has it: what is refused, what is rare, and what a hostile agent says.

mod agent;
mod messages;
mod opening;
mod requests;
mod sessions;
#[path = "../support/mod.rs"]
mod support;
mod turns;
