//! Peers that want harm: the runner stays up, its memory is bounded, and an honest control beside them hardly notices.
//!
//! Each attack goes on while an honest control gives commands and hears a session; see `siege`.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use oqto_control::{ConnectError, RunnerAddr};
use oqto_protocol::attest::Attest;
use oqto_protocol::bounds::FRAME_LEN_MAX;
use oqto_protocol::codec::Blob;
use oqto_protocol::command::{Command, CommandEnvelope, GetState};
use oqto_protocol::frame::{HEADER_LEN, Kind};
use oqto_protocol::id::CommandId;
use oqto_protocol::query::{PolicyList, Query, RunnerSessions, RunnerStatus};
use oqto_tests::Home;
use quinn::{Connection, RecvStream, SendStream};
use tokio::task::JoinSet;

use crate::initial::{Beginnings, answer_to, hello_of_tls_1_2};
use crate::siege::{Door, Enough, Siege};
use crate::stranger::{
    Stranger, control_papers, expired_papers, first_answer, forged_papers, frame, hello, open,
    pretender_papers,
};

const MIB: u64 = 1024 * 1024;

/// How many handshakes are begun and not finished.
const HALF_OPEN: usize = 10_000;

/// What strangers may cost, bytes. They have 64 places: each begins a handshake of TLS, which takes some 100 KiB with its
/// certificates and buffers, and sends at most a greeting of 16 KiB. Twice that, for what an allocator keeps.
const STRANGERS_MAX: u64 = 2 * 64 * (100 + 16) * 1024;

/// What one peer with good papers may cost by what it does not finish, bytes: 40 MiB of long frames, 8 MiB that nobody
/// has read, 256 streams with a short frame of 16 KiB that takes up to twice that; and what its connection takes.
const UNFINISHED_MAX: u64 = 40 * MIB + 8 * MIB + 256 * 2 * 16 * 1024 + 8 * MIB;

/// What a flood of short requests may cost, bytes: 256 streams of each of four connections, with a task, a request and
/// an answer of at most 64 KiB that the peer has not taken.
const FLOOD_MAX: u64 = 4 * 256 * 64 * 1024;

/// How many streams a peer may have at once.
const STREAMS: usize = 256;

/// How long an honest peer would wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Begins handshakes and leaves them, in a moment, from whatever socket `from` gives for the one of that number.
fn half_open(door: &Door, from: impl Fn(usize) -> Option<UdpSocket>) {
    let stranger = door.stranger();
    let (to, name) = (stranger.at.address, stranger.name());
    let mut beginnings = Beginnings::new(stranger.tls(), to, name);
    let mut socket = from(0).unwrap();
    for number in 0..HALF_OPEN {
        if let Some(next) = from(number) {
            socket = next;
        }
        // A full buffer drops it, as a network would.
        let _sent = socket.send_to(&beginnings.next(), to);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_half_open_handshakes_from_one_port() {
    let attack = |door: Door, _| async move {
        let work = move || {
            half_open(&door, |number| {
                (number == 0).then(|| UdpSocket::bind("127.0.0.1:0").unwrap())
            });
        };
        tokio::task::spawn_blocking(work).await.unwrap();
    };
    let siege = Siege::new().await;
    siege
        .endures("half-open handshakes of one port", STRANGERS_MAX, attack)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_half_open_handshakes_from_as_many_ports() {
    let attack = |door: Door, _| async move {
        let work = move || half_open(&door, |_| Some(UdpSocket::bind("127.0.0.1:0").unwrap()));
        tokio::task::spawn_blocking(work).await.unwrap();
    };
    let siege = Siege::new().await;
    siege
        .endures("half-open handshakes of many ports", STRANGERS_MAX, attack)
        .await;
}

/// Does the same over and over, so many at once, until it is enough.
async fn many<Doing: Future<Output = ()> + Send + 'static>(
    at_once: usize,
    enough: &Enough,
    mut one: impl FnMut(usize) -> Doing,
) {
    let mut going = JoinSet::new();
    let mut number = 0;
    while !enough.is_it() {
        while going.len() < at_once {
            going.spawn(one(number));
            number += 1;
        }
        going.join_next().await;
    }
    while going.join_next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_connect_without_end() {
    let attack = |door: Door, enough: Enough| async move {
        many(8, &enough, |number| {
            let door = door.clone();
            async move {
                // Turned away, let in and gone, or told that there is no place: each in its turn.
                let _turned_away = match number % 3 {
                    0 => door.stranger().connect().await,
                    1 => {
                        door.stranger()
                            .with(forged_papers("an-authority"))
                            .connect()
                            .await
                    }
                    _ => door.welcomed().await,
                };
            }
        })
        .await;
    };
    let siege = Siege::new().await;
    siege
        .endures("a flood of connections", STRANGERS_MAX, attack)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_known_who_never_say_hello() {
    let attack = |door: Door, enough: Enough| async move {
        many(16, &enough, |_| {
            let door = door.clone();
            async move {
                let Ok(connection) = door.known().await else {
                    return;
                };
                // It begins one and never ends it.
                let (mut up, _down) = open(&connection).await.unwrap();
                let _sent = up.write_all(&hello(1, 1)[..3]).await;
                // The runner hangs up after 10 s.
                let _gone = tokio::time::timeout(PATIENCE, connection.closed()).await;
            }
        })
        .await;
    };
    let siege = Siege::new().await;
    siege
        .endures("connections without a hello", STRANGERS_MAX, attack)
        .await;
}

/// Opens as many streams as there may be, with these bytes each, and leaves them open.
async fn occupy(connection: &Connection, bytes: &[u8]) -> Vec<(SendStream, RecvStream)> {
    let mut streams = Vec::new();
    // One was that of the hello, and one is left over.
    for _ in 2..STREAMS {
        let (mut up, down) = open(connection).await.unwrap();
        let piece = up.write_all(bytes);
        // Flow control holds up who is not read any more.
        let _held_up = tokio::time::timeout(Duration::from_millis(20), piece).await;
        streams.push((up, down));
    }
    streams
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_opened_and_never_say_anything() {
    let attack = |door: Door, _| async move {
        let silent = door.welcomed().await.unwrap();
        // One byte of a length: less is no stream at all to the other side.
        let streams = occupy(&silent, &[1]).await;
        assert!(silent.close_reason().is_none());
        // It still has the one stream that is left.
        let answered = first_answer(&silent, &frame(&Query::RunnerStatus(RunnerStatus {}))).await;
        assert_eq!(answered.unwrap().0, Kind::ANSWER);
        drop(streams);
        silent.close(0_u8.into(), b"");
    };
    let siege = Siege::new().await;
    siege.endures("silent streams", UNFINISHED_MAX, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_and_fifty_six_halves_of_the_longest_frame() {
    let attack = |door: Door, _| async move {
        let greedy = door.welcomed().await.unwrap();
        let mut half = u32::try_from(FRAME_LEN_MAX).unwrap().to_le_bytes().to_vec();
        half.extend(Kind::COMMAND.0.to_le_bytes());
        half.resize(FRAME_LEN_MAX / 2, 0);
        let streams = occupy(&greedy, &half).await;
        assert_eq!(streams.len(), STREAMS - 2);
        greedy.close(0_u8.into(), b"");
    };
    let siege = Siege::new().await;
    siege
        .endures("halves of long frames", UNFINISHED_MAX, attack)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn giant_and_truncated_frames_of_every_kind() {
    let attack = |door: Door, _| async move {
        let connection = door.welcomed().await.unwrap();
        for (kind, name) in Kind::ALL {
            for len in [2, 3, 100, FRAME_LEN_MAX, FRAME_LEN_MAX + 1, u32::MAX as usize] {
                for body in [0, 1, 97, 4096] {
                    let mut bytes = u32::try_from(len).unwrap().to_le_bytes().to_vec();
                    bytes.extend(kind.0.to_le_bytes());
                    bytes.resize(HEADER_LEN + body, 0xa5);
                    let (mut up, mut down) = open(&connection).await.unwrap();
                    // It may be refused before all of it is there.
                    let _refused = up.write_all(&bytes).await;
                    let _refused = up.finish();
                    let ended = tokio::time::timeout(PATIENCE, down.read_to_end(1 << 20)).await;
                    assert!(ended.is_ok(), "{name} of {len} with {body} is not done with");
                }
            }
        }
        let answered = first_answer(&connection, &frame(&Query::RunnerStatus(RunnerStatus {}))).await;
        assert_eq!(answered.unwrap().0, Kind::ANSWER);
        connection.close(0_u8.into(), b"");
    };
    let siege = Siege::new().await;
    siege.endures("broken frames", UNFINISHED_MAX, attack).await;
}

/// Asks for the same on all streams of some connections until it is enough.
async fn flood(door: Door, enough: Enough, question: impl Fn(u64) -> Vec<u8> + Send + Sync + Copy + 'static) {
    let mut floods = JoinSet::new();
    for peer in 0..2_u64 {
        let (door, enough) = (door.clone(), enough.clone());
        floods.spawn(async move {
            let connection = door.welcomed().await.unwrap();
            let link = connection.clone();
            many(STREAMS - 1, &enough, move |number| {
                let link = link.clone();
                let question = question(peer << 32 | number as u64);
                async move {
                    let answered = first_answer(&link, &question).await;
                    assert!(answered.is_ok(), "{answered:?}");
                }
            })
            .await;
            connection.close(0_u8.into(), b"");
        });
    }
    while let Some(ended) = floods.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_commands() {
    let attack = |door, enough| {
        flood(door, enough, |number| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            frame(&CommandEnvelope {
                id: CommandId(id),
                session_id: "s-nobodys".parse().unwrap(),
                runner_id: None,
                command: Command::GetState(GetState {}),
                on_behalf_of: None,
            })
        })
    };
    let siege = Siege::new().await;
    siege.endures("a flood of commands", FLOOD_MAX, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_queries() {
    let attack = |door, enough| {
        flood(door, enough, |number| {
            frame(&match number % 4 {
                0 => Query::RunnerStatus(RunnerStatus {}),
                1 => Query::RunnerSessions(RunnerSessions {}),
                2 => Query::PolicyList(PolicyList {}),
                _ => Query::RunnerAttest(Attest {
                    nonce: Blob(vec![7; 32]),
                }),
            })
        })
    };
    let siege = Siege::new().await;
    siege.endures("a flood of queries", FLOOD_MAX, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_host_whose_controls_never_say_hello_leaves_others_their_places() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let from = |last: u8| {
        let papers = control_papers(
            &home.path("data/oqto/authority"),
            control.authority().id().as_str(),
        );
        let mut stranger = Stranger::of(&control, runner.addr()).with(papers);
        stranger.from = Ipv4Addr::new(127, 0, 0, last);
        stranger.connect()
    };
    let mut greedy = Vec::new();
    let refused = loop {
        match from(2).await {
            Ok(connection) => greedy.push(connection),
            Err(error) => break error,
        }
    };
    // Half of all places, and that is said. Who has said nothing for too long has none any more.
    greedy.retain(|connection| connection.close_reason().is_none());
    assert_eq!(greedy.len(), 32, "{refused}");
    assert!(refused.contains("refused"), "{refused}");
    let other = from(3).await.unwrap();
    assert_eq!(first_answer(&other, &hello(1, 1)).await.unwrap().0, Kind::WELCOME);
    // Who says hello is no stranger any more.
    let was_one = greedy.pop().unwrap();
    assert_eq!(
        first_answer(&was_one, &hello(1, 1)).await.unwrap().0,
        Kind::WELCOME
    );
    from(2).await.unwrap();
    control.close().await;
    tokio::task::spawn_blocking(|| drop(home)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_has_expired_is_refused() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let papers = expired_papers(
        &home.path("data/oqto/authority"),
        control.authority().id().as_str(),
    );
    let said = Stranger::of(&control, runner.addr())
        .with(papers)
        .turned_away()
        .await;
    // 45: the certificate has expired.
    assert!(said.contains("45") || said.contains("xpired"), "{said}");
    runner.status().await.unwrap();
    control.close().await;
    tokio::task::spawn_blocking(|| drop(home)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greeting_of_tls_1_2_is_refused_as_one() {
    let home = Home::new();
    let control = home.control();
    let runner = control.local().await.unwrap();
    let to = runner.addr().address;
    let payload = tokio::task::spawn_blocking(move || answer_to(&hello_of_tls_1_2(), to))
        .await
        .unwrap();
    // CONNECTION_CLOSE, for the alert 70: protocol_version.
    let refused = [0x1c, 0x41, 70];
    assert!(payload.windows(3).any(|part| part == refused), "{payload:02x?}");
    runner.status().await.unwrap();
    control.close().await;
    tokio::task::spawn_blocking(|| drop(home)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_believes_no_other_control_that_stands_in_for_a_runner() {
    let home = Home::new();
    let control = home.control();
    let authority = control.authority().id().to_string();
    let papers = pretender_papers(&home.path("data/oqto/authority"), &authority, "r-pretended");
    let endpoint = papers.listen();
    let serving = {
        let endpoint = endpoint.clone();
        tokio::spawn(async move {
            let connection = endpoint.accept().await.unwrap().await.unwrap();
            connection.closed().await
        })
    };
    let at = RunnerAddr {
        id: "r-pretended".parse().unwrap(),
        address: endpoint.local_addr().unwrap(),
    };
    let refused = control.connect(at).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Stranger { .. }), "{refused:?}");
    assert!(serving.await.unwrap().to_string().contains("another name"));
    control.close().await;
    drop(home);
}
