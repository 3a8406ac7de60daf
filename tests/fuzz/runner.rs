//! The own decoders of the runner and of the control. Not for libFuzzer: its program is built without them.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use oqto_control::Authority;
use oqto_control::posture::SandboxCheck;
use oqto_protocol::codec::Blob;
use oqto_protocol::command::{Command, CommandEnvelope, Prompt};
use oqto_protocol::cursor::Cursor;
use oqto_protocol::enrol::{KeyAlgorithm, SigningRequest};
use oqto_protocol::event::Event;
use oqto_protocol::id::{CommandId, Digest};
use oqto_protocol::policy::{NetworkAccess, SandboxReport};
use oqto_runner::audit::ocsf;
use oqto_runner::audit::record::Line;
use oqto_runner::harness::{Edition, Harness};
use oqto_runner::identity::{Peer, Pin};
use oqto_runner::kernel_audit::Record;
use oqto_runner::policy::Permissions;
use oqto_runner::session::{Action, Fact, Input, Report, Session, Setup};
use rustls::pki_types::CertificateDer;

use super::targets::Target;

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "audit_line",
        run: audit_line,
        golden: None,
    },
    Target {
        name: "audit_record",
        run: audit_record,
        golden: None,
    },
    Target {
        name: "certificate",
        run: certificate,
        golden: None,
    },
    Target {
        name: "facts",
        run: facts,
        golden: None,
    },
    Target {
        name: "harness_acp",
        run: harness_acp,
        golden: None,
    },
    Target {
        name: "harness_pi",
        run: harness_pi,
        golden: None,
    },
    Target {
        name: "pin",
        run: pin,
        golden: None,
    },
    Target {
        name: "public_key",
        run: public_key,
        golden: None,
    },
    Target {
        name: "sandbox_check",
        run: sandbox_check,
        golden: None,
    },
];

/// What an agent prints that works at a prompt.
fn harness_acp(bytes: &[u8]) {
    let opened = [
        br#"{"jsonrpc":"2.0","id":"initialize","result":{"protocolVersion":1,"agentCapabilities":{"loadSession":true}}}"#
            .as_slice(),
        br#"{"jsonrpc":"2.0","id":"open","result":{"sessionId":"s1","modes":{"currentModeId":"a","availableModes":[{"id":"a"},{"id":"b"}]}}}"#,
    ];
    harness(Harness::acp("agent", "agent", None), &opened, bytes);
}

/// What pi prints that works at a prompt, and was made to ask before it acts.
fn harness_pi(bytes: &[u8]) {
    let begun = [
        br#"{"type":"extension_ui_request","id":"1","method":"setStatus","statusKey":"oqto-gate","statusText":"asks"}"#
            .as_slice(),
        br#"{"id":"probe","type":"response","command":"get_state","success":true,"data":{}}"#,
    ];
    harness(Harness::pi().made_to_ask(), &begun, bytes);
}

/// Whatever a harness prints: messages are numbered without gaps and end once, and a session at rest goes on from its
/// snapshot as if nothing had been.
fn harness(harness: Harness, begin: &[&[u8]], bytes: &[u8]) {
    const AT: u64 = 1_000_000;
    let setup = Setup {
        session_id: "s".parse().expect("a name"),
        harness,
        cwd: "/w".to_owned(),
        sandbox: SandboxReport {
            policy: "workspace".to_owned(),
            digest: Digest([0; 32]),
            network: NetworkAccess::None,
            layers: Vec::new(),
        },
        edition: Edition::default(),
        continue_session: None,
        permissions: Permissions::default(),
        title: None,
        provider: None,
        model: None,
        labels: BTreeMap::default(),
        created_at: AT,
        cursor: Cursor { epoch: 1, seq: 0 },
        next_idx: 0,
    };
    let mut session = Session::new(setup.clone(), AT);
    let mut out = Vec::new();
    session.step(
        &Input::Report(&Report::Confined { layers: Vec::new() }),
        AT,
        &mut out,
    );
    for line in begin {
        session.step(&Input::Out(line), AT, &mut out);
        session.step(&Input::Out(b"\n"), AT, &mut out);
    }
    let prompt = CommandEnvelope {
        id: CommandId([1; 16]),
        session_id: "s".parse().expect("a name"),
        runner_id: None,
        command: Command::Prompt(Prompt {
            message: "work".to_owned(),
            images: Vec::new(),
            client_id: None,
            resources: Vec::new(),
        }),
        on_behalf_of: None,
    };
    session.step(&Input::Command(&prompt), AT, &mut out);
    session.step(&Input::Out(bytes), AT + 10, &mut out);
    while let Some(at) = session.poll_timeout().filter(|at| *at < AT + 5_000) {
        session.step(&Input::Deadline, at, &mut out);
    }
    let mut ended = 0;
    for action in &out {
        if let Action::Record {
            event: Event::MessageEnd(end),
            ..
        } = action
        {
            assert_eq!(end.message.idx, ended);
            ended += 1;
        }
    }
    if let Some(snapshot) = session.snapshot() {
        let text = serde_json::to_string(&snapshot).expect("a snapshot has a form");
        let snapshot = serde_json::from_str(&text).expect("its own form");
        let mut again = Session::restore(&snapshot, setup).expect("its own form");
        let (mut one, mut other) = (Vec::new(), Vec::new());
        session.step(&Input::Out(bytes), AT + 6_000, &mut one);
        again.step(&Input::Out(bytes), AT + 6_000, &mut other);
        assert_eq!(one, other);
    }
}

/// A line of the audit log that is what it says can be shown, in either form.
fn audit_line(bytes: &[u8]) {
    let Some(line) = Line::read(bytes) else { return };
    let Some(record) = line.record() else { return };
    assert_eq!(record.seq, line.seq);
    assert!(ocsf(&record, &line.hash.to_string()).is_object());
}

/// Texts of a record are no longer than the record.
fn audit_record(bytes: &[u8]) {
    let (text, other) = match oqto_runner::kernel_audit::parse(bytes) {
        Ok(Some(Record::Seccomp { program, .. })) => (program, None),
        Ok(Some(Record::Landlock { rights, target, .. })) => (target, Some(rights)),
        Ok(_) | Err(_) => (None, None),
    };
    // A byte that is no text becomes three.
    assert!(text.unwrap_or_default().len() <= 3 * bytes.len());
    assert!(other.unwrap_or_default().len() <= bytes.len());
}

/// What can be read is written the same way again.
fn facts(bytes: &[u8]) {
    if let Some(Ok(facts)) = Fact::parse(bytes) {
        let again = Fact::parse(&Fact::note(&facts));
        assert!(matches!(again, Some(Ok(again)) if again == facts), "{facts:?}");
    }
}

/// A name that a certificate gives is one of the authority that was asked for.
fn certificate(bytes: &[u8]) {
    let authority = "an-authority".parse().unwrap();
    let chain = [CertificateDer::from(bytes)];
    if let Ok(peer) = Peer::from_chain(&chain, &authority) {
        assert_eq!(peer.authority, authority);
    }
}

/// A pin is written as it was read, but for its letters.
fn pin(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(pin) = text.parse::<Pin>() {
        assert_eq!(pin.to_string(), text.to_ascii_lowercase());
    }
}

/// Whatever key a runner sends, its authority signs it or says no.
fn public_key(bytes: &[u8]) {
    static AUTHORITY: LazyLock<(tempfile::TempDir, Authority)> = LazyLock::new(|| {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(&dir.path().join("authority")).unwrap();
        (dir, authority)
    });
    let request = SigningRequest {
        algorithm: KeyAlgorithm::EcdsaP256Sha256,
        public_key: Blob(bytes.to_vec()),
        runner_id: None,
    };
    let runner = "r-1".parse().unwrap();
    let signed = AUTHORITY.1.sign(&request, &runner, Duration::from_secs(60));
    assert!(
        signed.is_err() || bytes.len() == 65,
        "{} bytes of a key",
        bytes.len()
    );
}

/// What a runner says of its sandbox can be looked at.
fn sandbox_check(bytes: &[u8]) {
    let Ok(check) = serde_json::from_slice::<SandboxCheck>(bytes) else {
        return;
    };
    assert!(check.not_stopped().count() <= check.tried());
    let enforced = check.layers.iter().filter(|layer| layer.is_enforced());
    assert!(enforced.clone().count() <= check.layers.len());
    assert!(enforced.clone().all(|layer| check.layer(&layer.layer).is_some()));
}
