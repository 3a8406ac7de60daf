//! The whole way: `oqtoctl` or the library, a real runner, a real sandbox, real agents.
//!
//! Each test has a home of its own and leaves nothing running, which the home sees to. Needs the workspace's programs
//! and examples built beside these tests, bubblewrap, python3, and the agents that `tests/run.sh` installs. Run by
//! root, agents run as the owner of each home's workspace; run by anybody else, as themselves.
#![expect(
    clippy::unwrap_used,
    reason = "a bed that cannot be made is a test that failed"
)]

mod agent_bed;
mod attest;
mod audit;
mod authority;
mod bad_input;
mod claude;
mod claude_bed;
mod conformance;
mod dial;
mod direct;
mod dormant;
mod enrol;
mod example;
mod exec;
mod far;
mod followers;
mod health;
mod hostile;
mod initial;
mod keys;
mod leaks;
mod liar;
mod link;
mod lives;
mod migration;
mod permissions;
mod pi;
mod pi_bed;
mod pi_old;
mod pi_permissions;
mod pi_sessions;
mod pi_turns;
mod reconnect;
mod recover;
mod renew;
mod restart;
mod retention;
mod roles;
mod said;
mod sandboxed;
mod served;
mod siege;
mod stores;
mod stranger;
mod survive;
mod told;
mod trust;
mod upgrade;
mod violations;
mod waking;
mod watch;
