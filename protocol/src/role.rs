//! What a control may do on a runner.

use crate::codec::words;

words! {
    /// What a control may do on a runner or in one of its workspaces; each may do what those before it may.
    pub enum ControlRole {
        /// See: sessions, what was said, events, files.
        0 "read" => Read,
        /// Change what stands in a workspace, without making anything run.
        1 "write" => Write,
        /// Make agents and programs run: sessions, prompts, answers, terminals.
        2 "execute" => Execute,
        /// Forget history, read the audit log.
        3 "owner" => Owner,
    }
}
