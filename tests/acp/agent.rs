//! An agent made with the official crate of the Agent Client Protocol. The first word of a prompt says what it does:
//! `say TEXT`, `ask` (for permission), `wait` (until it is cancelled), `write PATH TEXT`, `read PATH` and `run SCRIPT` (by
//! its client), `where` (which session this is).
#![forbid(unsafe_code)]

use std::sync::Arc;

use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{
    AgentCapabilities, CancelNotification, ContentBlock, ContentChunk, CreateTerminalRequest, Implementation,
    InitializeRequest, InitializeResponse, LoadSessionRequest, LoadSessionResponse, NewSessionRequest,
    NewSessionResponse, PermissionOption, PermissionOptionKind, PromptRequest, PromptResponse,
    ReadTextFileRequest, ReleaseTerminalRequest, RequestPermissionOutcome, RequestPermissionRequest,
    SessionId, SessionNotification, SessionUpdate, StopReason, TerminalOutputRequest, TextContent, ToolCall,
    ToolCallUpdate, ToolCallUpdateFields, ToolKind, WaitForTerminalExitRequest, WriteTextFileRequest,
};
use agent_client_protocol::{Agent, Client, Result, Stdio, on_receive_notification, on_receive_request};
use tokio::sync::Notify;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let cancelled = Arc::new(Notify::new());
    let cancel = Arc::clone(&cancelled);
    Agent
        .v1()
        .name("official-agent")
        .on_receive_request(
            async move |asked: InitializeRequest, responder, _: ConnectionTo<Client>| {
                let answer = InitializeResponse::new(asked.protocol_version)
                    .agent_capabilities(AgentCapabilities::new().load_session(true))
                    .agent_info(Implementation::new("official-agent", "5.0.0"));
                responder.respond(answer)
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |_: NewSessionRequest, responder, _: ConnectionTo<Client>| {
                responder.respond(NewSessionResponse::new("the-first"))
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |asked: LoadSessionRequest, responder, client: ConnectionTo<Client>| {
                say(&client, &asked.session_id, "said before ")?;
                responder.respond(LoadSessionResponse::new())
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |asked: PromptRequest, responder, client: ConnectionTo<Client>| {
                let cancelled = Arc::clone(&cancelled);
                let to = client.clone();
                client.spawn(async move {
                    let stop = turn(&asked, &to, &cancelled).await?;
                    responder.respond(PromptResponse::new(stop))
                })
            },
            on_receive_request!(),
        )
        .on_receive_notification(
            async move |_: CancelNotification, _: ConnectionTo<Client>| {
                cancel.notify_one();
                Ok(())
            },
            on_receive_notification!(),
        )
        .connect_to(Stdio::new())
        .await
}

fn say(client: &ConnectionTo<Client>, session: &SessionId, text: &str) -> Result<()> {
    let chunk = ContentChunk::new(ContentBlock::Text(TextContent::new(text)));
    let update = SessionUpdate::AgentMessageChunk(chunk);
    client.send_notification(SessionNotification::new(session.clone(), update))
}

async fn turn(
    asked: &PromptRequest,
    client: &ConnectionTo<Client>,
    cancelled: &Notify,
) -> Result<StopReason> {
    let session = &asked.session_id;
    let text = match asked.prompt.first() {
        Some(ContentBlock::Text(text)) => text.text.as_str(),
        _ => "",
    };
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match word {
        "say" => {
            for piece in rest.split_inclusive(' ') {
                say(client, session, piece)?;
            }
        }
        "ask" => {
            let answer = ask(session, client).await?;
            say(client, session, answer)?;
        }
        "wait" => {
            say(client, session, "waiting")?;
            cancelled.notified().await;
            return Ok(StopReason::Cancelled);
        }
        "write" => {
            let (path, content) = rest.split_once(' ').unwrap_or((rest, ""));
            let request = WriteTextFileRequest::new(session.clone(), path, content);
            let answer = client.send_request(request).block_task().await;
            say(client, session, answer.map_or("not written", |_| "written"))?;
        }
        "read" => {
            let request = ReadTextFileRequest::new(session.clone(), rest);
            let answer = client.send_request(request).block_task().await;
            say(
                client,
                session,
                &answer.map_or("not read".to_owned(), |it| it.content),
            )?;
        }
        "run" => say(client, session, &run(session, rest, client).await?)?,
        _ => say(client, session, &session.to_string())?,
    }
    Ok(StopReason::EndTurn)
}

/// What a shell's script in a terminal of the client's printed, and how it ended.
async fn run(session: &SessionId, script: &str, client: &ConnectionTo<Client>) -> Result<String> {
    let args = ["-c", script].map(str::to_owned).to_vec();
    let request = CreateTerminalRequest::new(session.clone(), "sh").args(args);
    let terminal = client.send_request(request).block_task().await?.terminal_id;
    let request = WaitForTerminalExitRequest::new(session.clone(), terminal.clone());
    let ended = client.send_request(request).block_task().await?.exit_status;
    let request = TerminalOutputRequest::new(session.clone(), terminal.clone());
    let printed = client.send_request(request).block_task().await?.output;
    let request = ReleaseTerminalRequest::new(session.clone(), terminal);
    client.send_request(request).block_task().await?;
    Ok(format!("{printed}{:?}", ended.exit_code))
}

async fn ask(session: &SessionId, client: &ConnectionTo<Client>) -> Result<&'static str> {
    let call = ToolCall::new("call-1", "Remove everything").kind(ToolKind::Delete);
    client.send_notification(SessionNotification::new(
        session.clone(),
        SessionUpdate::ToolCall(call),
    ))?;
    let options = vec![
        PermissionOption::new("always", "Always", PermissionOptionKind::AllowAlways),
        PermissionOption::new("once", "Once", PermissionOptionKind::AllowOnce),
        PermissionOption::new("never", "No", PermissionOptionKind::RejectOnce),
    ];
    let call = ToolCallUpdate::new("call-1", ToolCallUpdateFields::new());
    let request = RequestPermissionRequest::new(session.clone(), call, options);
    let answer = client.send_request(request).block_task().await?;
    Ok(match answer.outcome {
        RequestPermissionOutcome::Selected(chosen) if &*chosen.option_id.0 == "once" => "allowed",
        RequestPermissionOutcome::Selected(chosen) if &*chosen.option_id.0 == "never" => "refused",
        RequestPermissionOutcome::Cancelled => "cancelled",
        _ => "something else",
    })
}
