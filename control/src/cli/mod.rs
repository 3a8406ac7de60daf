//! The command line `oqtoctl`: this library for a human.
//!
//! It uses nothing but the library's public interface, so that whatever it does an embedder can do. `main` is the
//! edge: it parses, dispatches, prints the chain of an error once and chooses the exit code. What an agent or a tool
//! wrote reaches a terminal only through `clean`.

mod act;
mod args;
mod ask;
mod attest;
mod authority;
mod clean;
mod drive;
mod edge;
mod error;
mod exec;
mod human;
mod link;
mod list;
mod listen;
mod note;
mod output;
mod prompter;
mod quote;
mod run;
mod runners;
mod set;
mod show;
mod spinner;
mod target;
mod time;
mod token;
mod tool;

pub use edge::main;
