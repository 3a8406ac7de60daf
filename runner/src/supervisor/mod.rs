//! Sessions: made, kept alive, driven, ended, and found again after the runner was gone.
//!
//! Floor: house. Joins the cores (`session`, `harness`, `policy`) with the shells (`sandbox`, `shim`) and the event
//! log. One task drives one session and owns everything of it ([`Driver`](driver)); what one session does to itself
//! touches no other. A session is its directory below the runner's state:
//!
//! | below `sessions/ID/` | whose | what |
//! |---|---|---|
//! | `session.json` | the runner's | what it was asked to be; while it is unloaded, what a list says of it |
//! | `home/` | the principal's | the harness's home: its configuration and its own session files |
//! | `shim/N/` | the principal's | the tape and the shim's socket of the harness's Nth start, from 0, while it lives |
//!
//! Not here: who may ask for what (`daemon`).

mod again;
#[cfg_attr(
    not(feature = "simulation"),
    expect(unreachable_pub, reason = "seen by simulations")
)]
mod asking;
mod begin;
mod claims;
mod create;
mod damaged;
mod decide;
mod driver;
mod facts;
mod farewell;
mod fleet;
mod forget;
mod group;
mod handle;
mod health;
mod installed;
mod keeping;
mod ledger;
#[cfg_attr(
    not(feature = "simulation"),
    expect(unreachable_pub, reason = "seen by simulations")
)]
mod mind;
#[cfg_attr(
    not(feature = "simulation"),
    expect(unreachable_pub, reason = "seen by simulations")
)]
mod origin;
mod own_sessions;
mod package;
mod patience;
mod prepare;
#[cfg_attr(
    not(feature = "simulation"),
    expect(unreachable_pub, reason = "seen by simulations")
)]
mod reading;
mod record;
mod revive;
mod seed;
mod settings;
mod stores;
mod unload;
mod vitals;
mod witness;
#[cfg_attr(
    not(feature = "simulation"),
    expect(unreachable_pub, reason = "seen by simulations")
)]
mod writes;

pub use fleet::{OpenError, Supervisor, harnesses, no_session};
pub use handle::{Followed, Workplace};
pub use prepare::PrepareError;
pub use settings::{HealthSettings, Settings};

/// What decides in a driver, for a simulation of the world around it.
#[cfg(feature = "simulation")]
pub mod simulation {
    pub use super::asking::Unkept;
    pub use super::mind::{Deed, Mind, Said};
    pub use super::origin::Origin;
    pub use super::reading::Reading;
    pub use super::writes::Write;
}
