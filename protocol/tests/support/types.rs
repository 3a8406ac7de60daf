//! The types of the protocol, each field and variant by name: one that is left out does not compile.

use oqto_protocol::codec::{Blob, Unknown};
use oqto_protocol::{
    attest, command, cursor, delegation, enrol, event, fault, file, hello, message, policy, query, reply,
    role, session, stream, terminal, trust,
};

use super::{Sample, Source};

/// An enum of variants.
pub(crate) trait Variants: Sized {
    /// Every name, with the minor version that brought it.
    const NAMES: &'static [(&'static str, u16)];

    /// One of each variant that this version knows, in their order, each from a source of its own.
    fn each(source: fn() -> Source<'static>) -> Vec<Self>;

    /// One that it does not know.
    fn unknown(unknown: Unknown) -> Self;

    /// Its name.
    fn name(&self) -> &'static str;
}

macro_rules! structs {
    ($($module:ident::$type:ident { $($field:ident),* $(,)? };)+) => {$(
        impl Sample for $module::$type {
            #[allow(clippy::allow_attributes, unused_variables, reason = "a struct may have no field")]
            fn sample(source: &mut Source<'_>) -> Self {
                Self { $($field: source.field(stringify!($field)),)* }
            }
        }
    )+};
}

macro_rules! variants {
    ($($module:ident::$type:ident { $($variant:ident),+ $(,)? };)+) => {$(
        impl Variants for $module::$type {
            const NAMES: &'static [(&'static str, u16)] = Self::NAMES;

            fn each(source: fn() -> Source<'static>) -> Vec<Self> {
                vec![$(Self::$variant(Sample::sample(&mut source())),)+]
            }

            fn unknown(unknown: Unknown) -> Self {
                Self::Unknown(unknown)
            }

            fn name(&self) -> &'static str {
                // Every variant is named here, so a new one stops the build.
                match self {
                    $(Self::$variant(_) => self.name(),)+
                    Self::Unknown(_) => self.name(),
                }
            }
        }

        impl Sample for $module::$type {
            fn sample(source: &mut Source<'_>) -> Self {
                let makes: &[fn(&mut Source<'_>) -> Self] = &[
                    $(|source| Self::$variant(Sample::sample(source)),)+
                    |source| Self::Unknown(Unknown { kind: 10_000, bytes: Blob::sample(source) }),
                ];
                let known = makes.len() - usize::from(!source.is_free());
                makes[source.below(known as u64) as usize](source)
            }
        }
    )+};
}

macro_rules! words {
    ($($module:ident::$type:ident),+ $(,)?) => {
        $(impl Sample for $module::$type {
            fn sample(source: &mut Source<'_>) -> Self {
                let all = Self::ALL;
                let free = usize::from(source.is_free());
                let index = source.below((all.len() + free) as u64) as usize;
                all.get(index).copied().unwrap_or(Self::Unknown(70_000))
            }
        })+

        /// Every enum of words: its name, and its words with their numbers.
        pub(crate) fn words() -> Vec<(&'static str, Vec<(u32, String)>)> {
            vec![$((
                stringify!($type),
                $module::$type::ALL.iter().map(|word| (word.number(), word.to_string())).collect(),
            )),+]
        }
    };
}

structs! {
    cursor::Cursor { epoch, seq };
    policy::SandboxReport { policy, digest, network, layers };
    policy::LayerReport { layer, state, detail };
    policy::PolicyInfo { name, description, digest };
    policy::PolicyText { info, text };
    session::SessionConfig { harness, cwd, provider, model, continue_session, policy, env, title, labels };
    session::SessionInfo { session_id, state, harness, cwd, policy, title, created_at, cursor, message_count, model, labels };
    session::SessionStatus { info, capabilities, thinking_level, provider, pending_request, sandbox, harness_state };
    session::SessionStats { user_messages, assistant_messages, tool_calls, input_tokens, output_tokens, cost_usd };
    hello::Hello { minor, minor_min, features, build };
    hello::Welcome { minor, features, runner_id, harnesses, limits, build, role };
    hello::HarnessInfo { name, program, problem, capabilities, version, tested, warning };
    hello::Limits { frame_len_max, sessions_max, streams_max };
    hello::BuildInfo { name, version };
    fault::Fault { code, message };
    message::Media { source, alt, duration_sec, transcript, filename, size_bytes };
    message::SourceUrl { url, mime };
    message::SourceAttachment { attachment_ref, mime };
    message::SourceInline { data, mime };
    message::Part { id, content };
    message::Text { text, format };
    message::Thinking { text };
    message::ToolCall { tool_call_id, name, input, status };
    message::ToolResult { tool_call_id, name, output, is_error, duration_ms };
    message::FileRef { uri, label, range };
    message::LineRange { start_line, end_line };
    message::Extension { name, payload, meta };
    message::Message { id, idx, role, parts, created_at, client_id, sender, model, provider, stop_reason, usage, tool_call_id, tool_name, is_error, metadata };
    message::Usage { input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd };
    message::Sender { type_, id, name, runner_id, session_id };
    delegation::Delegate { target_session_id, target_runner_id, message, mode, sandbox_profile, timeout_ms, max_tokens, context };
    delegation::DelegateCancel { request_id };
    delegation::DelegateStart { request_id, target_session_id, target_runner_id, mode };
    delegation::DelegateDelta { request_id, delta };
    delegation::DelegateEnd { request_id, response, responder, duration_ms };
    delegation::DelegateError { request_id, error, code };
    event::AgentIdle {};
    event::AgentWorking { phase, detail };
    event::AgentError { error, recoverable, phase };
    event::Numbered { epoch, seq, first_seq, ts, event };
    event::Transient { session_id, ts, event };
    event::InputNeeded { request };
    event::SelectRequest { request_id, title, options, timeout };
    event::ConfirmRequest { request_id, title, message, timeout };
    event::TextRequest { request_id, title, placeholder, timeout };
    event::PermissionRequest { request_id, title, description, options, metadata, tool, timeout };
    event::PermissionTool { tool_call_id, name, kind, targets, input };
    event::Plan { entries };
    event::PlanEntry { content, status, priority };
    event::PermissionOption { id, label, kind };
    event::InputResolved { request_id, by, decision, rule };
    event::ModelChanged { provider, model_id };
    event::ThinkingLevelChanged { level };
    event::ModeChanged { mode_id };
    event::Notify { level, message };
    event::Status { key, text };
    event::Persisted { message_count, seq };
    event::RetryStart { attempt, max_attempts, delay_ms, error };
    event::RetryEnd { success, attempt, final_error };
    event::CompactStart { reason };
    event::CompactEnd { success, will_retry, error, summary, tokens_before };
    event::SandboxViolation { layer, operation, target, decision };
    event::SandboxLimit { resource, used, limit };
    event::SessionCreated { resumed, harness, capabilities, sandbox, version };
    event::SessionClosed { reason };
    event::TitleChanged { title, readable_id };
    event::Heartbeat { process };
    event::ProcessHealth { alive, pid, rss_bytes, cpu_pct, uptime_s };
    event::Recovered { how, lost, sandbox };
    event::SessionDormant { reason };
    event::MessageStart { message_id, role };
    event::TextDelta { message_id, delta, content_index };
    event::ThinkingDelta { message_id, delta, content_index };
    event::ToolCallStart { message_id, tool_call_id, name, content_index };
    event::ToolCallDelta { message_id, tool_call_id, delta, content_index };
    event::ToolCallEnd { message_id, tool_call_id, content_index, tool_call };
    event::FinishedCall { id, name, input };
    event::MessageEnd { message };
    event::StreamDone { reason };
    event::StreamReset { epoch, seq };
    event::ToolStart { tool_call_id, name, input };
    event::ToolProgress { tool_call_id, name, partial_output, mode };
    event::ToolEnd { tool_call_id, name, output, is_error, duration_ms };
    command::CommandEnvelope { id, session_id, runner_id, command, on_behalf_of };
    command::SessionCreate { config };
    command::SessionClose {};
    command::SessionDelete {};
    command::SessionRestart { env };
    command::SessionNew { parent_session };
    command::SessionSwitch { session_path };
    command::ListSessions {};
    command::Prompt { message, images, client_id, resources };
    command::Resource { uri, label, mime, text };
    command::Shell { command, apart };
    command::SetMode { mode_id };
    command::Steer { message, client_id };
    command::FollowUp { message, client_id };
    command::Abort {};
    command::InputResponse { request_id, value, confirmed, cancelled };
    command::GetState {};
    command::GetMessages { after_idx, limit };
    command::GetStats {};
    command::GetModels { workdir };
    command::GetCommands {};
    command::GetForkPoints {};
    command::SetModel { provider, model_id };
    command::CycleModel {};
    command::SetThinkingLevel { level };
    command::CycleThinkingLevel {};
    command::SetAutoCompaction { enabled };
    command::SetAutoRetry { enabled };
    command::Compact { instructions };
    command::AbortRetry {};
    command::SetSessionName { name };
    command::Fork { entry_id };
    reply::Reply { id, cmd, success, data, error };
    reply::Created { session };
    reply::Accepted { cursor };
    reply::State { status };
    reply::Messages { messages, more };
    reply::Stats { stats };
    reply::Models { models };
    reply::ModelInfo { provider, id, name, reasoning, context_tokens };
    reply::HarnessAnswer { answer };
    reply::Sessions { sessions };
    enrol::SigningRequest { algorithm, public_key, runner_id };
    enrol::Enrol { token, request };
    enrol::Renew { request };
    enrol::Grant { authority_id, runner_id, certificate, trust, not_after };
    trust::Trust { statement, signature };
    trust::TrustStatement { authority_id, number, issued_at, roots, revoked_runners, revoked_controls, revoked_serials };
    attest::Attest { nonce };
    attest::Attestation { statement, signature };
    attest::Statement { nonce, channel, runner_id, taken_at, version, binary, kernel, sandbox_check, policies };
    file::FileList { session_id, path };
    file::FileStat { session_id, path };
    file::FileRead { session_id, path, offset, length };
    file::FileWrite { session_id, path, size, mode };
    file::FileRemove { session_id, path };
    file::FileRename { session_id, from, to };
    file::FileMakeDir { session_id, path };
    file::FileEntries { entries, more };
    file::FileStatus { path, kind, size, modified_at, mode };
    file::FileChunk { offset, data };
    file::FileEnd { size, digest };
    terminal::TerminalOpen { session_id, terminal_id, rows, cols, command };
    terminal::TerminalOpened { terminal_id, offset };
    terminal::TerminalInput { data };
    terminal::TerminalOutput { offset, data };
    terminal::TerminalResize { rows, cols };
    terminal::TerminalExit { code, signal };
    stream::Subscribe { session_id, cursor, max_frame, on_behalf_of };
    stream::Subscribed { cursor, oldest, newest };
    stream::Ack { seq };
    query::RunnerStatus {};
    query::RunnerSessions {};
    query::PolicyList {};
    query::PolicyShow { name };
    query::AuditTail { from };
    query::AuditRecord { record };
    query::Status { runner_id, version, uptime_s, sessions, sessions_max, rss_bytes, harnesses, notes };
    query::SessionList { sessions };
    query::Policies { policies };
    query::Done {};
}

variants! {
    message::Source { SourceUrl, SourceAttachment, SourceInline };
    message::Content { Text, Thinking, ToolCall, ToolResult, Image, Audio, Video, Attachment, FileRef, Extension };
    event::InputRequest { SelectRequest, ConfirmRequest, TextRequest, PermissionRequest };
    event::Event { SessionCreated, SessionClosed, TitleChanged, Heartbeat, Recovered, SessionDormant, AgentIdle, AgentWorking, AgentError, InputNeeded, InputResolved, Plan, MessageStart, TextDelta, ThinkingDelta, ToolCallStart, ToolCallDelta, ToolCallEnd, MessageEnd, StreamDone, StreamReset, ToolStart, ToolProgress, ToolEnd, RetryStart, RetryEnd, CompactStart, CompactEnd, ModelChanged, ThinkingLevelChanged, ModeChanged, Notify, Status, Persisted, SandboxViolation, SandboxLimit, DelegateStart, DelegateDelta, DelegateEnd, DelegateError };
    command::Command { SessionCreate, SessionClose, SessionDelete, SessionRestart, SessionNew, SessionSwitch, ListSessions, Prompt, Steer, FollowUp, Abort, InputResponse, Shell, GetState, GetMessages, GetStats, GetModels, GetCommands, GetForkPoints, SetModel, CycleModel, SetThinkingLevel, CycleThinkingLevel, SetAutoCompaction, SetAutoRetry, Compact, AbortRetry, SetSessionName, SetMode, Fork, Delegate, DelegateCancel };
    reply::ReplyData { Created, Accepted, State, Messages, Stats, Models, HarnessAnswer, Sessions };
    query::Query { RunnerStatus, RunnerAttest, RunnerSessions, PolicyList, PolicyShow, FilesList, FilesStat, FilesRead, FilesWrite, FilesRemove, FilesRename, FilesMakeDir, TerminalOpen, AuditTail, Enrol, Renew, Trust };
    query::Answer { Status, Attested, SessionList, Policies, Policy, FileEntries, File, Done, Terminal, AuditRecord, Grant, Fault };
}

words! {
    policy::NetworkAccess,
    policy::LayerState,
    session::SessionState,
    session::Capability,
    fault::FaultCode,
    message::TextFormat,
    message::ToolStatus,
    message::Role,
    message::StopReason,
    message::SenderType,
    delegation::DelegateMode,
    delegation::DelegateErrorCode,
    event::Phase,
    event::PermissionKind,
    event::ResolvedBy,
    event::PlanStatus,
    event::NotifyLevel,
    event::CompactReason,
    event::ViolationDecision,
    event::DoneReason,
    event::ProgressMode,
    enrol::KeyAlgorithm,
    file::WriteMode,
    file::FileKind,
    role::ControlRole,
}
