//! Trust statements: signed by the authority, brought by any control, learnt at once and kept.

use std::fs;
use std::sync::Arc;

use oqto_protocol::codec::Blob;
use oqto_protocol::fault::FaultCode;
use oqto_protocol::query::Answer;
use oqto_protocol::trust::Trust;

use crate::authority::{Authority, HOUR};
use crate::control::{Link, Listening, renews};
use crate::dialling::enrolled;
use crate::runner::{Place, Running};

struct Bed {
    authority: Arc<Authority>,
    place: Place,
}

impl Bed {
    async fn new() -> Self {
        let bed = Self {
            authority: Arc::new(Authority::new("a")),
            place: Place::new(),
        };
        enrolled(&bed.place, &bed.authority, "r-1", HOUR).await;
        bed
    }

    async fn dial(&self, runner: &mut Running<'_>, control: &str) -> Result<Link, String> {
        self.dial_of(runner, &self.authority, control, None).await
    }

    async fn dial_of(
        &self,
        runner: &mut Running<'_>,
        signer: &Authority,
        control: &str,
        serial: Option<&[u8]>,
    ) -> Result<Link, String> {
        let at = runner.listening().await.address;
        let papers = signer.control_of(control, serial);
        let answer = renews(self.authority.clone(), HOUR);
        Link::dial(&self.authority, papers, at, "r-1", answer).await
    }

    fn kept(&self) -> Option<Trust> {
        let text = fs::read(self.place.identity("trust.json")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }
}

/// Whose links the audit log says were cut, by name.
fn cut_off(place: &Place) -> Vec<String> {
    let mut controls = Vec::new();
    for entry in fs::read_dir(place.state().join("audit")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in text.lines().filter(|line| line.contains("\"connection.cut\"")) {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(
                record["detail"].as_str().unwrap().contains("is revoked"),
                "{record}"
            );
            controls.push(record["control"].as_str().unwrap().to_owned());
        }
    }
    controls.sort();
    controls
}

fn is_done(answer: &Result<Answer, String>) -> bool {
    matches!(answer, Ok(Answer::Done(_)))
}

fn denied(answer: Result<Answer, String>) -> String {
    match answer {
        Ok(Answer::Fault(fault)) if fault.code == FaultCode::Denied => fault.message,
        other => panic!("a statement that should be refused was answered {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_revoked_is_cut_at_once_and_stays_out() {
    let bed = Bed::new().await;
    let mut runner = bed.place.serve(&[]);
    let honest = bed.dial(&mut runner, "honest").await.unwrap();
    let evil = bed.dial(&mut runner, "evil").await.unwrap();
    let serial = [0x45, 1, 2, 3];
    let lost = bed
        .dial_of(&mut runner, &bed.authority, "lost", Some(&serial))
        .await;
    let lost = lost.unwrap();

    let statement = bed.authority.statement(1, |statement| {
        statement.revoked_controls = vec!["evil".parse().unwrap()];
        statement.revoked_serials = vec![Blob(serial.to_vec())];
    });
    assert!(is_done(&honest.tell(statement.clone()).await));
    for link in [&evil, &lost] {
        let reason = link.cut().await;
        assert!(reason.contains("is revoked"), "{reason}");
    }
    honest.status().await;

    // Told again, the same: nothing to do. They do not come back, and a fresh certificate of one of them helps him.
    assert!(is_done(&honest.tell(statement.clone()).await));
    let error = bed.dial(&mut runner, "evil").await.err().unwrap();
    assert!(error.contains("is revoked"), "{error}");
    let again = bed
        .dial_of(&mut runner, &bed.authority, "lost", Some(&serial))
        .await;
    assert!(again.err().unwrap().contains("is revoked"));
    bed.dial(&mut runner, "lost").await.unwrap();

    // The next runner at this place knows it too.
    assert_eq!(bed.kept(), Some(statement));
    runner.stop().await;
    // Who was cut off stands in the audit log.
    assert_eq!(cut_off(&bed.place), ["evil", "lost"]);
    let mut runner = bed.place.serve(&[]);
    let error = bed.dial(&mut runner, "evil").await.err().unwrap();
    assert!(error.contains("is revoked"), "{error}");
    // Pardoned by the next statement, which is the whole of it.
    let honest = bed.dial(&mut runner, "honest").await.unwrap();
    assert!(is_done(&honest.tell(bed.authority.statement(2, |_| {})).await));
    bed.dial(&mut runner, "evil").await.unwrap();
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_revoked_itself_says_which_way_back_there_is() {
    let bed = Bed::new().await;
    let mut runner = bed.place.serve(&[]);
    let link = bed.dial(&mut runner, "honest").await.unwrap();
    let shown = rustls::pki_types::CertificateDer::from(link.shown().to_vec());
    let serial = webpki::EndEntityCert::try_from(&shown).unwrap().serial().to_vec();
    let statement = bed.authority.statement(1, |statement| {
        statement.revoked_serials = vec![Blob(serial)];
    });
    assert!(is_done(&link.tell(statement).await));
    runner
        .logs("revoked the certificate of this runner: no control connects to it any more; the way back: on the control", 1)
        .await;
    let statement = bed.authority.statement(2, |statement| {
        statement.revoked_runners = vec!["r-1".parse().unwrap()];
    });
    assert!(is_done(&link.tell(statement).await));
    runner.logs("revoked runner r-1 for good", 1).await;
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_that_the_runner_dialled_is_cut_as_well() {
    let bed = Bed::new().await;
    let answer = renews(bed.authority.clone(), HOUR);
    let mut control = Listening::start(&bed.authority, bed.authority.control("evil"), answer);
    let target = control.address.to_string();
    let mut runner = bed.place.serve(&["--dial", &target]);
    let evil = control.next().await;
    // It may bring the statement itself.
    let statement = bed.authority.statement(1, |statement| {
        statement.revoked_controls = vec!["evil".parse().unwrap()];
    });
    let honest = bed.dial(&mut runner, "honest").await.unwrap();
    assert!(is_done(&honest.tell(statement).await));
    assert!(evil.cut().await.contains("is revoked"));
    runner.logs("control evil, or its certificate", 2).await;
    honest.status().await;
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_authority_says_whom_to_trust_and_never_less_than_it_said() {
    let bed = Bed::new().await;
    let mut runner = bed.place.serve(&[]);
    let link = bed.dial(&mut runner, "honest").await.unwrap();
    let forger = Authority::new("a");
    let said = denied(link.tell(forger.statement(1, |_| {})).await);
    assert!(said.contains("no root that this runner trusts"), "{said}");
    let mut changed = bed.authority.statement(1, |_| {});
    *changed.statement.0.last_mut().unwrap() ^= 1;
    denied(link.tell(changed).await);
    let other = bed
        .authority
        .statement(1, |statement| statement.authority_id = "b".parse().unwrap());
    let said = denied(link.tell(other).await);
    assert!(said.contains("authority b"), "{said}");
    assert_eq!(bed.kept(), None);

    let five = bed.authority.statement(5, |_| {});
    assert!(is_done(&link.tell(five.clone()).await));
    let four = bed.authority.statement(4, |_| {});
    let said = denied(link.tell(four).await);
    assert!(said.contains("number 4") && said.contains("number 5"), "{said}");
    let twice = bed.authority.statement(5, |statement| statement.issued_at = 9);
    denied(link.tell(twice).await);
    assert_eq!(bed.kept(), Some(five));
    link.status().await;
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_changes_its_root_without_losing_the_runner() {
    let bed = Bed::new().await;
    let next = Arc::new(Authority::new("a"));
    let mut runner = bed.place.serve(&[]);
    let old = bed.dial(&mut runner, "old").await.unwrap();
    let error = bed.dial_of(&mut runner, &next, "new", None).await.err().unwrap();
    assert!(error.contains("certificate"), "{error}");

    // Both are trusted, and links stand.
    let both = bed.authority.statement(1, |statement| {
        statement.roots.push(Blob(next.root.to_vec()));
    });
    assert!(is_done(&old.tell(both).await));
    old.status().await;
    let new = bed.dial_of(&mut runner, &next, "new", None).await.unwrap();

    // The new one lets go of the old. Who is of the old root is cut; and the runner, whose own certificate is of the old
    // one, asks for another at once.
    let at = runner.listening().await.address;
    let signer = Link::dial(
        &bed.authority,
        next.control("signer"),
        at,
        "r-1",
        renews(next.clone(), HOUR * 2),
    );
    let signer = signer.await.unwrap();
    let only = next.statement(2, |_| {});
    assert!(is_done(&new.tell(only).await));
    let reason = old.cut().await;
    assert!(reason.contains("trusted no more"), "{reason}");
    runner.logs("certificate renewed", 1).await;
    signer.status().await;
    new.status().await;
    let error = bed.dial(&mut runner, "old").await.err().unwrap();
    assert!(error.contains("certificate"), "{error}");
    // Who trusts the new root alone finds the runner under it, also after a restart.
    runner.stop().await;
    let mut runner = bed.place.serve(&[]);
    let at = runner.listening().await.address;
    let answer = renews(next.clone(), HOUR * 2);
    let link = Link::dial(&next, next.control("new"), at, "r-1", answer);
    link.await.unwrap().status().await;
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolling_anew_takes_the_roots_that_it_is_given_and_keeps_revocations() {
    let bed = Bed::new().await;
    let mut runner = bed.place.serve(&[]);
    let link = bed.dial(&mut runner, "honest").await.unwrap();
    let statement = bed.authority.statement(7, |statement| {
        statement.revoked_controls = vec!["evil".parse().unwrap()];
    });
    assert!(is_done(&link.tell(statement).await));
    runner.stop().await;
    // The authority has changed its root twice meanwhile, and this runner has seen neither.
    let next = Arc::new(Authority::new("a"));
    enrolled(&bed.place, &next, "r-1", HOUR).await;
    let mut runner = bed.place.serve(&[]);
    let at = runner.listening().await.address;
    let answer = renews(next.clone(), HOUR);
    let dial = |control: &str| Link::dial(&next, next.control(control), at, "r-1", answer.clone());
    let link = dial("honest").await.unwrap();
    assert!(dial("evil").await.err().unwrap().contains("is revoked"));
    denied(link.tell(next.statement(6, |_| {})).await);
    assert!(is_done(&link.tell(next.statement(8, |_| {})).await));
    dial("evil").await.unwrap();
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolling_anew_in_the_middle_of_a_rotation_forgets_no_root_that_the_authority_has_signed() {
    let bed = Bed::new().await;
    let next = Arc::new(Authority::new("a"));
    let mut runner = bed.place.serve(&[]);
    let link = bed.dial(&mut runner, "honest").await.unwrap();
    let statement = bed.authority.statement(1, |statement| {
        statement.roots.push(Blob(next.root.to_vec()));
    });
    assert!(is_done(&link.tell(statement).await));
    runner.stop().await;
    // Under the root that still signs.
    enrolled(&bed.place, &bed.authority, "r-1", HOUR).await;
    let mut runner = bed.place.serve(&[]);
    bed.dial(&mut runner, "honest").await.unwrap();
    bed.dial_of(&mut runner, &next, "honest", None).await.unwrap();
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_on_disk_that_is_damaged_stops_the_start() {
    let bed = Bed::new().await;
    let mut runner = bed.place.serve(&[]);
    let link = bed.dial(&mut runner, "honest").await.unwrap();
    assert!(is_done(&link.tell(bed.authority.statement(1, |_| {})).await));
    runner.stop().await;
    fs::write(bed.place.identity("trust.json"), "{}").unwrap();
    let said = bed.place.serve(&[]).failed().await;
    assert!(said.contains("trust.json"), "{said}");
}
