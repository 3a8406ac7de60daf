//! The session core: which command is allowed when, how sessions end, and what a bad harness cannot do.

use oqto_protocol::command::*;
use oqto_protocol::event::{DoneReason, Event, NotifyLevel};
use oqto_protocol::fault::FaultCode;
use oqto_protocol::id::CommandId;
use oqto_protocol::reply::{Reply, ReplyData};
use oqto_protocol::session::{SessionConfig, SessionState};
use oqto_runner::bounds::HARNESS_LINE_MAX;
use oqto_runner::harness::Harness;
use oqto_runner::policy::Otherwise;
use oqto_runner::session::{Action, ExitStatus, Input, Report, Session};

mod support;

use support::{T0, setup};

/// A session with what it wanted done, and a clock of its own.
struct Bench {
    session: Session,
    now: u64,
    ids: u8,
}

impl Bench {
    fn new(harness: Harness) -> Self {
        Self {
            session: Session::new(setup(harness), T0),
            now: T0,
            ids: 0,
        }
    }

    fn step(&mut self, input: &Input<'_>) -> Vec<Action> {
        let mut out = Vec::new();
        self.session.step(input, self.now, &mut out);
        out
    }

    fn out(&mut self, line: &str) -> Vec<Action> {
        self.step(&Input::Out(format!("{line}\n").as_bytes()))
    }

    fn confined(&mut self) -> Vec<Action> {
        self.step(&Input::Report(&Report::Confined { layers: Vec::new() }))
    }

    /// A command under the next id.
    fn tell(&mut self, command: Command) -> (CommandId, Vec<Action>) {
        self.ids += 1;
        let id = CommandId([self.ids; 16]);
        (id, self.again(id, command))
    }

    fn again(&mut self, id: CommandId, command: Command) -> Vec<Action> {
        let envelope = CommandEnvelope {
            id,
            session_id: "s".parse().expect("a name"),
            runner_id: None,
            command,
            on_behalf_of: None,
        };
        self.step(&Input::Command(&envelope))
    }

    /// Waits until something is overdue.
    fn wait(&mut self) -> Vec<Action> {
        self.now = self.session.poll_timeout().expect("something to wait for");
        self.step(&Input::Deadline)
    }

    fn answer(&mut self, id: CommandId, command: &str) -> Vec<Action> {
        self.out(&format!(
            r#"{{"id":"{id}","type":"response","command":"{command}","success":true}}"#
        ))
    }

    /// A pi that waits for a prompt.
    fn idle() -> Self {
        let mut bench = Self::new(Harness::pi());
        bench.confined();
        bench.out(r#"{"id":"probe","type":"response","command":"get_state","success":true,"data":{}}"#);
        assert_eq!(bench.session.state(), SessionState::Idle);
        bench
    }

    /// A pi that works.
    fn streaming() -> Self {
        let mut bench = Self::idle();
        let (id, _) = bench.tell(prompt("work"));
        bench.answer(id, "prompt");
        bench.out(r#"{"type":"agent_start"}"#);
        assert_eq!(bench.session.state(), SessionState::Streaming);
        bench
    }

    fn in_state(state: SessionState) -> Self {
        let bench = match state {
            SessionState::Starting => Self::new(Harness::pi()),
            SessionState::Idle => Self::idle(),
            SessionState::Streaming => Self::streaming(),
            SessionState::Compacting => {
                let mut bench = Self::idle();
                bench.out(r#"{"type":"compaction_start","reason":"manual"}"#);
                bench
            }
            SessionState::Aborting => {
                let mut bench = Self::streaming();
                bench.tell(Command::Abort(Abort {}));
                bench
            }
            SessionState::Stopping => {
                let mut bench = Self::idle();
                bench.tell(Command::SessionClose(SessionClose {}));
                bench
            }
            _ => {
                let mut bench = Self::idle();
                bench.step(&Input::Exited(ExitStatus::Code(0)));
                bench
            }
        };
        assert_eq!(bench.session.state(), state);
        bench
    }
}

fn prompt(message: &str) -> Command {
    Command::Prompt(Prompt {
        message: message.to_owned(),
        images: Vec::new(),
        client_id: None,
        resources: Vec::new(),
    })
}

fn steer() -> Command {
    Command::Steer(Steer {
        message: "left".to_owned(),
        client_id: None,
    })
}

fn replies(actions: &[Action]) -> Vec<&Reply> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Reply(reply) => Some(reply),
            _ => None,
        })
        .collect()
}

fn events(actions: &[Action]) -> Vec<&Event> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Record { event, .. } => Some(event),
            _ => None,
        })
        .collect()
}

fn names(actions: &[Action]) -> Vec<&'static str> {
    events(actions).into_iter().map(Event::name).collect()
}

fn code(actions: &[Action]) -> Option<FaultCode> {
    replies(actions).first()?.error.as_ref().map(|fault| fault.code)
}

fn closed_reason(actions: &[Action]) -> &str {
    match events(actions).last() {
        Some(Event::SessionClosed(closed)) => closed.reason.as_deref().unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_is_allowed_in_its_states_and_no_others() {
    use SessionState::*;
    let all = [Starting, Idle, Streaming, Compacting, Aborting, Stopping, Closed];
    let live = [Starting, Idle, Streaming, Compacting, Aborting].as_slice();
    let compact = Command::Compact(Compact { instructions: None });
    let follow_up = Command::FollowUp(FollowUp {
        message: "then".to_owned(),
        client_id: None,
    });
    let level = Command::SetThinkingLevel(SetThinkingLevel {
        level: "low".to_owned(),
    });
    let new = Command::SessionNew(SessionNew { parent_session: None });
    let fork = Command::Fork(Fork {
        entry_id: "e".to_owned(),
    });
    let table: Vec<(Command, &[SessionState])> = vec![
        (prompt("hello"), &[Starting, Idle]),
        (steer(), &[Starting, Idle, Streaming]),
        (follow_up, &[Starting, Idle, Streaming]),
        (compact, &[Idle]),
        (new, &[Idle]),
        (fork, &[Idle]),
        (Command::Abort(Abort {}), live),
        (level, live),
        (Command::GetStats(GetStats {}), live),
        (Command::GetState(GetState {}), &all),
        (
            Command::GetMessages(GetMessages {
                after_idx: None,
                limit: None,
            }),
            &all,
        ),
        (Command::SessionClose(SessionClose {}), &all),
    ];
    for (command, allowed) in table {
        for state in all {
            let (_, actions) = Bench::in_state(state).tell(command.clone());
            let refused = code(&actions) == Some(FaultCode::WrongState);
            let what = format!("{} in {state}: {actions:?}", command.name());
            assert_eq!(refused, !allowed.contains(&state), "{what}");
        }
    }
}

#[test]
fn a_command_outside_the_capabilities_is_refused_by_their_name_at_once() {
    let mut bench = Bench::new(Harness::exec());
    let image = Command::SetThinkingLevel(SetThinkingLevel {
        level: "low".to_owned(),
    });
    let (_, actions) = bench.tell(image);
    let fault = replies(&actions)[0].error.as_ref().unwrap();
    assert_eq!(fault.code, FaultCode::Unsupported);
    assert!(fault.message.contains("set_thinking_level"), "{}", fault.message);
    let (_, actions) = Bench::idle().tell(Command::SetMode(SetMode {
        mode_id: "plan".to_owned(),
    }));
    assert_eq!(code(&actions), Some(FaultCode::Unsupported));
}

#[test]
fn the_same_command_again_gets_the_same_answer_and_does_nothing() {
    let mut bench = Bench::idle();
    let (id, first) = bench.tell(prompt("hello"));
    assert!(matches!(first[0], Action::Write { .. }));
    assert_eq!(bench.again(id, prompt("hello")), [], "it waits already");
    let answered = bench.answer(id, "prompt");
    let again = bench.again(id, prompt("hello"));
    assert_eq!(replies(&again), replies(&answered));
    assert_eq!(again.len(), 1);
}

#[test]
fn rules_for_what_a_harness_asks_are_said_to_be_idle_where_it_never_asks() {
    for (harness, is_said) in [
        (Harness::pi(), true),
        (Harness::pi().made_to_ask(), false),
        (Harness::acp("agent", "agent", None), false),
    ] {
        let mut setup = setup(harness);
        setup.permissions.otherwise = Otherwise::Deny;
        setup.permissions.wanted = true;
        let mut bench = Bench {
            session: Session::new(setup, T0),
            now: T0,
            ids: 0,
        };
        let mut actions = bench.confined();
        actions.extend(bench.step(&Input::Exited(ExitStatus::Code(0))));
        let warned = actions.iter().any(|action| match action {
            Action::Record {
                event: Event::Notify(note),
                ..
            } => note.message.contains("never asks"),
            _ => false,
        });
        assert_eq!(warned, is_said);
    }
}

#[test]
fn what_is_told_before_the_harness_listens_is_told_when_it_does() {
    let mut bench = Bench::new(Harness::pi());
    let (first, actions) = bench.tell(prompt("hello"));
    assert_eq!(actions, []);
    let (_, actions) = bench.tell(prompt("another"));
    assert_eq!(code(&actions), Some(FaultCode::WrongState));
    let (second, _) = bench.tell(steer());
    let actions = bench.confined();
    assert_eq!(names(&actions), ["session.created"]);
    let actions =
        bench.out(r#"{"id":"probe","type":"response","command":"get_state","success":true,"data":{}}"#);
    let written: Vec<String> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Write { bytes, .. } => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        })
        .collect();
    assert!(written[0].contains(&first.to_string()) && written[0].contains("hello"));
    assert!(written[1].contains(&second.to_string()) && written[1].contains("steer"));
}

#[test]
fn output_that_overtakes_the_report_of_the_sandbox_waits_for_it() {
    let mut bench = Bench::new(Harness::exec());
    assert_eq!(bench.out(r#"{"ready":{}}"#), []);
    let actions = bench.confined();
    assert_eq!(names(&actions), ["session.created"]);
    assert_eq!(bench.session.state(), SessionState::Idle);
}

#[test]
fn the_command_that_made_the_session_is_answered_by_its_sandbox() {
    let create = || {
        let config = Box::new(SessionConfig::default());
        Command::SessionCreate(SessionCreate { config })
    };
    let mut bench = Bench::new(Harness::pi());
    let (_, actions) = bench.tell(create());
    assert_eq!(actions, []);
    let actions = bench.confined();
    assert!(matches!(replies(&actions)[0].data, Some(ReplyData::Created(_))));

    let mut bench = Bench::new(Harness::pi());
    bench.tell(create());
    let actions = bench.step(&Input::Report(&Report::Failed {
        layer: "landlock".to_owned(),
        error: "not supported".to_owned(),
    }));
    assert_eq!(code(&actions), Some(FaultCode::Policy));
    assert!(closed_reason(&actions).contains("landlock"));
    assert_eq!(names(&actions), ["agent.error", "session.closed"]);
    assert_eq!(bench.session.poll_timeout(), None);
}

#[test]
fn a_prompt_that_pi_refuses_is_an_error_reply_and_the_session_is_idle() {
    let mut bench = Bench::idle();
    let (id, _) = bench.tell(prompt("hello"));
    let actions = bench.out(&format!(
        r#"{{"id":"{id}","type":"response","command":"prompt","success":false,"error":"No API key"}}"#
    ));
    let fault = replies(&actions)[0].error.as_ref().unwrap();
    assert_eq!(fault.code, FaultCode::Harness);
    assert!(fault.message.contains("No API key"));
    assert_eq!(bench.session.state(), SessionState::Idle);
    assert_eq!(names(&actions), [""; 0]);
}

#[test]
fn silence_is_answered_with_a_timeout() {
    let mut bench = Bench::idle();
    bench.tell(prompt("hello"));
    let actions = bench.wait();
    assert_eq!(code(&actions), Some(FaultCode::Timeout));
    assert_eq!(bench.session.state(), SessionState::Idle);
    assert_eq!(
        bench.session.poll_timeout(),
        None,
        "a spent deadline must not spin the driver"
    );

    let mut bench = Bench::new(Harness::pi());
    bench.confined();
    let (_, _) = bench.tell(prompt("hello"));
    let actions = bench.wait();
    assert_eq!(names(&actions), ["agent.error"]);
    assert_eq!(code(&actions), Some(FaultCode::Harness));
    assert!(actions.contains(&Action::Kill));
    let actions = bench.step(&Input::Exited(ExitStatus::Signal(9)));
    assert!(closed_reason(&actions).contains("60 s"));
}

#[test]
fn a_harness_that_dies_is_explained_with_what_it_said_last() {
    let mut bench = Bench::streaming();
    bench.out(r#"{"type":"message_start","message":{"role":"assistant"}}"#);
    bench.out(
        r#"{"type":"message_update","assistantMessageEvent":{"type":"text_delta","contentIndex":0,"delta":"half"}}"#,
    );
    bench.step(&Input::Err(b"boom: out of cheese\n"));
    let (_, _) = bench.tell(Command::GetStats(GetStats {}));
    let actions = bench.step(&Input::Exited(ExitStatus::Code(3)));
    assert_eq!(
        names(&actions),
        [
            "stream.message_end",
            "agent.error",
            "stream.done",
            "session.closed"
        ]
    );
    assert_eq!(
        closed_reason(&actions),
        "pi ended with exit code 3: boom: out of cheese"
    );
    assert_eq!(code(&actions), Some(FaultCode::Harness), "who waits is told");
    let Event::MessageEnd(end) = events(&actions)[0] else {
        panic!("{actions:?}");
    };
    assert!(format!("{:?}", end.message.parts).contains("half"));
    assert_eq!(bench.step(&Input::Exited(ExitStatus::Code(3))), []);
}

#[test]
fn a_session_that_is_closed_has_a_moment_and_is_killed_then() {
    let mut bench = Bench::streaming();
    let (_, actions) = bench.tell(Command::SessionClose(SessionClose {}));
    assert!(actions.contains(&Action::CloseStdin));
    assert!(bench.wait().contains(&Action::Kill));
    let actions = bench.step(&Input::Exited(ExitStatus::Signal(9)));
    assert_eq!(names(&actions), ["stream.done", "session.closed"]);
    assert!(closed_reason(&actions).contains("killed since it did not go"));

    let mut bench = Bench::idle();
    bench.tell(Command::SessionClose(SessionClose {}));
    let kills = (0..4).filter(|_| bench.wait().contains(&Action::Kill)).count();
    assert_eq!(kills, 3);
    assert_eq!(
        bench.session.state(),
        SessionState::Closed,
        "nobody waits for ever"
    );
    assert_eq!(bench.session.poll_timeout(), None);
}

#[test]
fn an_abort_that_is_not_obeyed_is_said_once() {
    let mut bench = Bench::streaming();
    bench.tell(Command::Abort(Abort {}));
    assert_eq!(names(&bench.wait()), ["agent.error"]);
    assert_eq!(bench.session.state(), SessionState::Aborting);
    assert_eq!(bench.session.poll_timeout(), None);
    let mut actions = bench.out(r#"{"type":"agent_end","messages":[],"willRetry":false}"#);
    actions.extend(bench.out(r#"{"type":"agent_settled"}"#));
    assert_eq!(names(&actions), ["stream.done", "agent.idle"]);
}

#[test]
fn an_abort_cancels_what_the_agent_asks_first() {
    let mut bench = Bench::streaming();
    bench.out(r#"{"type":"extension_ui_request","id":"q1","method":"select","title":"?","options":["a"]}"#);
    assert_eq!(bench.session.status().pending_request.as_deref(), Some("q1"));
    let (_, actions) = bench.tell(Command::Abort(Abort {}));
    let Action::Write { bytes, .. } = &actions[0] else {
        panic!("{actions:?}");
    };
    let text = String::from_utf8_lossy(bytes);
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what} in {text}"));
    assert!(at("cancelled") < at("clear_queue") && at("clear_queue") < at(r#""abort""#));
    assert_eq!(names(&actions), ["agent.input_resolved"]);
}

#[test]
fn an_answer_must_fit_what_was_asked() {
    let mut bench = Bench::streaming();
    bench.out(r#"{"type":"extension_ui_request","id":"q1","method":"select","title":"?","options":["a"]}"#);
    let answer = |request_id: &str, value: &str| {
        Command::InputResponse(InputResponse {
            request_id: request_id.to_owned(),
            value: Some(value.to_owned()),
            confirmed: None,
            cancelled: None,
        })
    };
    assert_eq!(code(&bench.tell(answer("q2", "a")).1), Some(FaultCode::NotFound));
    assert_eq!(code(&bench.tell(answer("q1", "b")).1), Some(FaultCode::Invalid));
    let (_, actions) = bench.tell(answer("q1", "a"));
    assert!(replies(&actions)[0].success);
    assert_eq!(names(&actions), ["agent.input_resolved"]);
}

#[test]
fn an_extension_command_leaves_the_session_idle() {
    let mut bench = Bench::idle();
    let (id, _) = bench.tell(prompt("/timed"));
    bench.answer(id, "prompt");
    let (second, _) = bench.tell(prompt("/other"));
    bench.answer(second, "prompt");
    assert_eq!(names(&bench.wait()), [""; 0]);
    assert_eq!(bench.session.state(), SessionState::Idle);
}

#[test]
fn an_extension_command_that_asked_leaves_room_for_a_prompt_before_it_is_answered() {
    let mut bench = Bench::idle();
    let (asks, _) = bench.tell(prompt("/asks"));
    let (_, actions) = bench.tell(prompt("too early"));
    assert_eq!(code(&actions), Some(FaultCode::WrongState));
    let actions = bench
        .out(r#"{"type":"extension_ui_request","id":"q1","method":"select","title":"?","options":["a"]}"#);
    assert!(replies(&actions)[0].success);
    let respond = Command::InputResponse(InputResponse {
        request_id: "q1".to_owned(),
        value: Some("a".to_owned()),
        confirmed: None,
        cancelled: None,
    });
    bench.tell(respond);
    let shown = bench.out(r#"{"type":"extension_ui_request","id":"n1","method":"notify","message":"done"}"#);
    assert_eq!(names(&shown), ["notify"]);
    // That the command is done is said to us alone, and after the last that is to be seen of it.
    let (next, actions) = bench.tell(prompt("next"));
    assert_eq!(code(&actions), None);
    bench.answer(asks, "prompt");
    let (_, actions) = bench.tell(prompt("too early again"));
    assert_eq!(code(&actions), Some(FaultCode::WrongState));
    bench.answer(next, "prompt");
    assert_eq!(names(&bench.out(r#"{"type":"agent_start"}"#)), ["agent.working"]);
    assert_eq!(bench.session.state(), SessionState::Streaming);
}

#[test]
fn garbage_is_shown_shortly_and_not_for_ever() {
    let mut bench = Bench::streaming();
    let garbage = format!("npm WARN {}", "x".repeat(10_000));
    let mut said = Vec::new();
    for _ in 0..1000 {
        said.extend(bench.out(&garbage));
    }
    let notes = events(&said);
    assert_eq!(notes.len(), 9);
    for note in &notes[..8] {
        assert!(
            matches!(note, Event::Notify(it) if it.level == NotifyLevel::Warning && it.message.len() < 400)
        );
    }
    assert!(matches!(notes[8], Event::AgentError(it) if it.recoverable));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    bench.out(&deep);
    bench.step(&Input::Out(b"\xff\xfe\x00\n{\"type\":\"message_end\"}\n\n{}\n"));
    assert_eq!(bench.session.state(), SessionState::Streaming);
}

#[test]
fn a_line_past_the_bound_ends_the_session_and_names_the_bound() {
    let mut bench = Bench::streaming();
    let mebibyte = vec![b'x'; 1024 * 1024];
    let mut said = Vec::new();
    for _ in 0..64 {
        said.extend(bench.step(&Input::Out(&mebibyte)));
    }
    assert_eq!(names(&said), ["agent.error"]);
    assert!(said.contains(&Action::Kill));
    let actions = bench.step(&Input::Exited(ExitStatus::Signal(9)));
    assert_eq!(names(&actions), ["stream.done", "session.closed"]);
    assert!(closed_reason(&actions).contains(&HARNESS_LINE_MAX.to_string()));
}

#[test]
fn a_type_that_pi_learns_tomorrow_is_kept_under_a_name_of_its_own() {
    let mut bench = Bench::streaming();
    let actions = bench.out(r#"{"type":"telepathy","thought":42}"#);
    let Event::Status(status) = events(&actions)[0] else {
        panic!("{actions:?}");
    };
    assert_eq!(status.key, "x-pi-telepathy");
    assert!(status.text.as_deref().unwrap().contains("42"));
}

#[test]
fn an_older_pi_that_repeats_everything_is_understood_too() {
    let mut bench = Bench::streaming();
    let whole =
        r#"{"role":"assistant","content":[{"type":"toolCall","id":"c1","name":"bash","arguments":{}}]}"#;
    let update = |event: &str| {
        format!(
            r#"{{"type":"message_update","message":{whole},"assistantMessageEvent":{{{event},"partial":{whole}}}}}"#
        )
    };
    let mut said = bench.out(&format!(r#"{{"type":"message_start","message":{whole}}}"#));
    said.extend(bench.out(&update(r#""type":"toolcall_start","contentIndex":0"#)));
    said.extend(bench.out(&update(
        r#""type":"toolcall_delta","contentIndex":0,"delta":"{}""#,
    )));
    assert_eq!(
        names(&said),
        [
            "stream.message_start",
            "stream.tool_call_start",
            "stream.tool_call_delta"
        ]
    );
    // It does not say when a run is over: its end is believed when nothing follows it.
    bench.out(&format!(r#"{{"type":"message_end","message":{whole}}}"#));
    assert_eq!(bench.out(r#"{"type":"agent_end","messages":[]}"#), []);
    bench.out(r#"{"type":"auto_retry_start","attempt":1,"maxAttempts":3,"delayMs":9,"errorMessage":"e"}"#);
    assert_eq!(bench.session.poll_timeout(), None);
    bench.out(r#"{"type":"agent_start"}"#);
    bench.out(r#"{"type":"agent_end","messages":[]}"#);
    assert_eq!(names(&bench.wait()), ["stream.done", "agent.idle"]);
    assert_eq!(bench.session.state(), SessionState::Idle);
}

#[test]
fn a_shell_command_is_a_run_with_its_output_and_its_exit_code() {
    let mut bench = Bench::new(Harness::exec());
    bench.confined();
    bench.out(r#"{"ready":{}}"#);
    let (id, actions) = bench.tell(Command::Prompt(Prompt {
        message: "echo hi".to_owned(),
        images: Vec::new(),
        client_id: Some("mine".to_owned()),
        resources: Vec::new(),
    }));
    assert!(matches!(&actions[0], Action::Write { bytes, .. } if bytes.ends_with(b"\n")));
    let mut said = bench.out(&format!(r#"{{"started":{{"id":"{id}"}}}}"#));
    assert!(replies(&said)[0].success);
    said.extend(bench.out(r#"{"out":"hi \"there\"\n"}"#));
    said.extend(bench.out(r#"{"err_b64":"//4="}"#));
    bench.now += 5;
    said.extend(bench.out(&format!(r#"{{"ended":{{"id":"{id}","code":7}}}}"#)));
    assert_eq!(
        names(&said),
        [
            "agent.working",
            "stream.message_start",
            "stream.message_end",
            "tool.start",
            "tool.progress",
            "tool.progress",
            "tool.end",
            "stream.message_start",
            "stream.message_end",
            "stream.done",
            "agent.idle"
        ]
    );
    let said = events(&said);
    assert!(matches!(said[2], Event::MessageEnd(it) if it.message.client_id.as_deref() == Some("mine")));
    assert!(
        matches!(said[4], Event::ToolProgress(it) if it.partial_output.text() == r#"{"stdout":"hi \"there\"\n"}"#)
    );
    let Event::ToolEnd(end) = said[6] else {
        panic!("{said:?}");
    };
    let output = end.output.value();
    assert_eq!(output["exit_code"], 7);
    assert_eq!(
        (&output["stdout_bytes"], &output["stderr_bytes"]),
        (&11.into(), &2.into())
    );
    assert_eq!(output["tail"], "hi \"there\"\n\u{fffd}\u{fffd}");
    assert_eq!((end.is_error, end.duration_ms), (true, Some(5)));
}

#[test]
fn a_shell_command_that_is_aborted_ends_as_aborted() {
    let mut bench = Bench::new(Harness::exec());
    bench.confined();
    bench.out(r#"{"ready":{}}"#);
    let (id, _) = bench.tell(prompt("sleep 100"));
    bench.out(&format!(r#"{{"started":{{"id":"{id}"}}}}"#));
    let (_, actions) = bench.tell(Command::Abort(Abort {}));
    assert!(matches!(&actions[0], Action::Write { bytes, .. } if bytes == b"{\"abort\":{}}\n"));
    let actions = bench.out(&format!(r#"{{"ended":{{"id":"{id}","signal":15}}}}"#));
    let done = events(&actions).into_iter().find_map(|event| match event {
        Event::StreamDone(done) => Some(done.reason),
        _ => None,
    });
    assert_eq!(done, Some(DoneReason::Aborted));
    assert!(!names(&actions).contains(&"agent.error"));
}

#[test]
fn a_long_output_costs_a_bounded_result() {
    let mut bench = Bench::new(Harness::exec());
    bench.confined();
    bench.out(r#"{"ready":{}}"#);
    let (id, _) = bench.tell(prompt("yes"));
    bench.out(&format!(r#"{{"started":{{"id":"{id}"}}}}"#));
    let piece = format!(r#"{{"out":"{}"}}"#, "日".repeat(10_000));
    for _ in 0..100 {
        bench.out(&piece);
    }
    let actions = bench.out(&format!(r#"{{"ended":{{"id":"{id}","code":0}}}}"#));
    let Event::ToolEnd(end) = events(&actions)[0] else {
        panic!("{actions:?}");
    };
    let output = end.output.value();
    assert_eq!(output["stdout_bytes"], 3_000_000);
    let tail = output["tail"].as_str().unwrap().len();
    assert!((65_000..=65_536).contains(&tail), "{tail}");
}

/// A pi that waits for a prompt and said where it keeps its own session.
fn returning() -> Bench {
    let mut bench = Bench::new(Harness::pi());
    bench.confined();
    bench.out(
        r#"{"id":"probe","type":"response","command":"get_state","success":true,"data":{"sessionFile":"/home/agent/s.jsonl"}}"#,
    );
    bench
}

/// Lets a pi that is down be started again and say that it is there.
fn comes_back(bench: &mut Bench) -> Vec<Action> {
    assert!(bench.wait().contains(&Action::Start));
    bench.step(&Input::Begun);
    bench.confined();
    bench.out(r#"{"id":"probe","type":"response","command":"get_state","success":true,"data":{}}"#)
}

#[test]
fn a_harness_that_dies_again_and_again_is_started_later_each_time_and_then_no_more() {
    let mut bench = returning();
    let mut waits = Vec::new();
    for _ in 0..5 {
        let died = bench.now;
        let actions = bench.step(&Input::Exited(ExitStatus::Signal(9)));
        assert_eq!(names(&actions), ["agent.error", "agent.working"]);
        assert_eq!(bench.session.state(), SessionState::Starting);
        let actions = comes_back(&mut bench);
        assert_eq!(names(&actions), ["session.recovered", "agent.idle"]);
        waits.push(bench.now - died);
    }
    assert!(waits.windows(2).all(|two| two[0] < two[1]), "{waits:?}");
    let actions = bench.step(&Input::Exited(ExitStatus::Signal(9)));
    assert_eq!(names(&actions), ["agent.error", "session.dormant"]);
    assert_eq!(bench.session.state(), SessionState::Dormant);
    assert_eq!(bench.session.poll_timeout(), None);
    let (_, actions) = bench.tell(prompt("hello"));
    assert_eq!(code(&actions), Some(FaultCode::WrongState));
    let (id, _) = bench.tell(Command::SessionRestart(SessionRestart::default()));
    let actions = comes_back(&mut bench);
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Reply(reply) if reply.id == id && reply.success))
    );
    assert_eq!(
        bench
            .again(id, Command::SessionRestart(SessionRestart::default()))
            .len(),
        2,
        "the same command again is only answered again"
    );
}

#[test]
fn deaths_that_are_far_apart_are_not_counted_together() {
    let mut bench = returning();
    for _ in 0..20 {
        bench.step(&Input::Exited(ExitStatus::Code(1)));
        comes_back(&mut bench);
        bench.now += 11 * 60_000;
    }
    assert_eq!(bench.session.state(), SessionState::Idle);
}

#[test]
fn a_session_that_is_down_goes_on_from_its_outline_alone() {
    let mut bench = returning();
    bench.step(&Input::Exited(ExitStatus::Signal(9)));
    let snapshot = bench.session.snapshot().expect("nothing runs");
    let mut out = Vec::new();
    let text = serde_json::to_string(&snapshot).expect("snapshots have a form");
    let other = text.replacen("\"version\":", "\"version\":9", 1);
    let other: oqto_runner::session::Snapshot = serde_json::from_str(&other).expect("any build's form");
    assert!(Session::restore(&other, setup(Harness::pi())).is_err());
    let session = Session::resume(other.outline(), setup(Harness::pi()), &mut out);
    assert_eq!(session.cursor().seq, bench.session.cursor().seq);
    assert_eq!(session.state(), SessionState::Starting);
    assert_eq!(session.continuation(), bench.session.continuation());
    assert_eq!(out, [], "nobody is there to be asked");
}

#[test]
fn a_harness_that_survives_its_kills_lies_down_where_it_can_come_back_unless_it_was_to_be_closed() {
    let mut bench = returning();
    let (id, _) = bench.tell(Command::SessionRestart(SessionRestart::default()));
    for _ in 0..3 {
        assert!(bench.wait().contains(&Action::Kill));
    }
    let actions = bench.wait();
    assert_eq!(names(&actions), ["agent.error", "session.dormant"]);
    assert!(
        replies(&actions)
            .iter()
            .any(|reply| reply.id == id && !reply.success)
    );
    assert_eq!(bench.session.state(), SessionState::Dormant);
    assert_eq!(bench.step(&Input::Exited(ExitStatus::Signal(9))), [Action::Rest]);
    let (_, actions) = bench.tell(Command::SessionRestart(SessionRestart::default()));
    assert_eq!(names(&actions), ["agent.working"]);
    assert_eq!(
        names(&comes_back(&mut bench)),
        ["session.recovered", "agent.idle"]
    );

    bench.tell(Command::SessionClose(SessionClose {}));
    for _ in 0..3 {
        assert!(bench.wait().contains(&Action::Kill));
    }
    assert_eq!(names(&bench.wait()), ["session.closed"]);
}

#[test]
fn a_harness_that_dies_before_it_says_anything_is_started_again_as_often_and_no_more() {
    let mut bench = returning();
    bench.step(&Input::Exited(ExitStatus::Signal(9)));
    for _ in 0..4 {
        assert!(bench.wait().contains(&Action::Start));
        bench.step(&Input::Begun);
        let actions = bench.step(&Input::Exited(ExitStatus::Code(1)));
        assert_eq!(names(&actions), ["agent.error", "agent.working"]);
    }
    assert!(bench.wait().contains(&Action::Start));
    bench.step(&Input::Begun);
    let actions = bench.step(&Input::Exited(ExitStatus::Code(1)));
    assert_eq!(names(&actions), ["agent.error", "session.dormant"]);
}
