//! The door to the network: whoever comes with the wrong papers, words or bytes is turned away, and an honest control
//! does not notice.

use oqto_control::{Control, Runner};
use oqto_protocol::fault::FaultCode;
use oqto_protocol::frame::Kind;
use oqto_tests::Home;
use quinn::Connection;

use crate::stranger::{
    Stranger, control_papers, fault, first_answer, forged_papers, frame, hello, papers_of, say,
};

struct Door {
    control: Control,
    runner: Runner,
    home: Home,
}

impl Door {
    async fn new() -> Self {
        let home = Home::new();
        let control = home.control();
        let runner = control.local().await.unwrap();
        Self {
            control,
            runner,
            home,
        }
    }

    fn stranger(&self) -> Stranger {
        Stranger::of(&self.control, self.runner.addr())
    }

    fn authority(&self) -> String {
        self.control.authority().id().to_string()
    }

    /// One with papers that are good, who says nothing yet.
    async fn known(&self) -> Connection {
        let papers = control_papers(&self.home.path("data/oqto/authority"), &self.authority());
        self.stranger().with(papers).connect().await.unwrap()
    }

    /// One who was welcomed.
    async fn welcomed(&self) -> Connection {
        let connection = self.known().await;
        let (kind, _) = first_answer(&connection, &hello(1, 1)).await.unwrap();
        assert_eq!(kind, Kind::WELCOME);
        connection
    }

    /// Asserts that the same runner still serves an honest control.
    async fn still_serves(self) {
        let pid = self.home.runner_pid();
        let fresh = self.control.connect(self.runner.addr()).await.unwrap();
        assert_eq!(fresh.status().await.unwrap().sessions, 0);
        assert_eq!(self.runner.sessions().await.unwrap(), []);
        self.control.close().await;
        let home = self.home;
        let work = move || {
            assert_eq!(home.sh("echo served").ok(), "served\n");
            assert_eq!(home.runner_pid(), pid);
            drop(home);
        };
        tokio::task::spawn_blocking(work).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_nobody_comes_in() {
    let door = Door::new().await;
    let said = door.stranger().turned_away().await;
    assert!(said.contains("certificate"), "{said}");
    door.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_refused_even_if_it_says_the_same() {
    let door = Door::new().await;
    let papers = forged_papers(&door.authority());
    let said = door.stranger().with(papers).turned_away().await;
    assert!(!said.contains("timed out"), "{said}");
    door.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_authority_that_names_no_control_of_it_is_refused() {
    let door = Door::new().await;
    let dir = door.home.path("data/oqto/authority");
    let own = door.authority();
    for uri in [
        format!("oqto://{own}/runner/{}", door.runner.id()),
        "oqto://0123456789abcdef/control/main".to_owned(),
        "https://example.org/".to_owned(),
    ] {
        let papers = papers_of(&dir, &own, &uri);
        let said = door.stranger().with(papers).turned_away().await;
        assert!(
            said.contains("names no control") || said.contains("authority"),
            "{uri}: {said}"
        );
    }
    door.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_is_refused_in_the_handshake() {
    let door = Door::new().await;
    for alpn in ["h3", "oqto/2", "oqto"] {
        let papers = control_papers(&door.home.path("data/oqto/authority"), &door.authority());
        let mut stranger = door.stranger().with(papers);
        stranger.alpn = alpn.into();
        let said = stranger.connect().await.unwrap_err();
        assert!(
            said.contains("120") || said.contains("protocol"),
            "{alpn}: {said}"
        );
    }
    door.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_share_nothing_are_refused_with_both_named() {
    let door = Door::new().await;
    for (minor, minor_min) in [(0, 0), (999, 999)] {
        let connection = door.known().await;
        let (kind, body) = first_answer(&connection, &hello(minor, minor_min)).await.unwrap();
        let fault = fault(kind, &body);
        assert_eq!(fault.code, FaultCode::Version);
        assert!(
            fault.message.contains(&minor.to_string()) && fault.message.contains("update"),
            "{}",
            fault.message
        );
    }
    // A newer one that still knows ours is welcome.
    let connection = door.known().await;
    let (kind, _) = first_answer(&connection, &hello(999, 1)).await.unwrap();
    assert_eq!(kind, Kind::WELCOME);
    connection.close(0_u8.into(), b"");
    door.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_begin_with_a_hello_is_not_listened_to() {
    let door = Door::new().await;
    let query = frame(&oqto_protocol::query::Query::RunnerStatus(
        oqto_protocol::query::RunnerStatus {},
    ));
    for bytes in [
        query,
        Vec::new(),
        vec![0xff; 4096],
        vec![0; 4096],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        let connection = door.known().await;
        // A fault or nothing: never an answer.
        if let Ok((kind, body)) = first_answer_or_end(&connection, &bytes).await {
            assert_eq!(fault(kind, &body).code, FaultCode::Malformed);
        }
        connection.close(0_u8.into(), b"");
    }
    door.still_serves().await;
}

/// As [`first_answer`], but the stream is finished: who sends nothing must not wait for an answer.
async fn first_answer_or_end(connection: &Connection, bytes: &[u8]) -> Result<(Kind, Vec<u8>), String> {
    let answer = say(connection, bytes).await?;
    match oqto_protocol::frame::Frame::split(&answer, 1 << 20) {
        Ok(Some((frame, _))) => Ok((frame.kind, frame.body.to_vec())),
        other => Err(format!("{other:?}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_none_end_their_own_stream_and_no_other() {
    let door = Door::new().await;
    let connection = door.welcomed().await;
    let mut giant = u32::MAX.to_le_bytes().to_vec();
    giant.extend([16, 0]);
    let past_the_bound = [&(64_u32 << 20).to_le_bytes()[..], &[16, 0]].concat();
    for bytes in [
        giant,
        past_the_bound,
        // No kind.
        vec![1, 0, 0, 0, 0],
        // A command whose body is garbage.
        [&[102, 0, 0, 0, 16, 0][..], &[0xff; 100]].concat(),
        // A query whose body is garbage.
        [&[102, 0, 0, 0, 18, 0][..], &[0xee; 100]].concat(),
        // A kind that nobody knows.
        [&[3, 0, 0, 0, 0xff, 0xff, 0][..]].concat(),
        // A frame that never ends.
        vec![0, 0, 1, 0, 16, 0, 1],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        if let Ok((kind, body)) = first_answer_or_end(&connection, &bytes).await {
            let answered = match kind {
                Kind::FAULT => fault(kind, &body).code,
                Kind::ANSWER => {
                    let frame = oqto_protocol::frame::Frame { kind, body: &body };
                    match frame.body::<oqto_protocol::query::Answer>().unwrap() {
                        oqto_protocol::query::Answer::Fault(fault) => fault.code,
                        other => panic!("{bytes:?} was answered with {other:?}"),
                    }
                }
                other => panic!("{bytes:?} was answered with a frame of kind {}", other.0),
            };
            assert!(
                matches!(answered, FaultCode::Malformed | FaultCode::Unsupported),
                "{bytes:?}: {answered:?}"
            );
        }
        // The next stream of the same connection is served.
        let query = frame(&oqto_protocol::query::Query::RunnerStatus(
            oqto_protocol::query::RunnerStatus {},
        ));
        let (kind, _) = first_answer(&connection, &query).await.unwrap();
        assert_eq!(kind, Kind::ANSWER);
    }
    connection.close(0_u8.into(), b"");
    door.still_serves().await;
}
