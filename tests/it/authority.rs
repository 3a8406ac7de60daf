//! An authority and its runners, both real: enrolling over the command line, dialling, renewing while a stream never stops,
//! a whole rotation, and the end.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use oqto_control::protocol::id::RunnerId;
use oqto_control::{
    Authority, Control, Event, Events, ListenOptions, Listener, Options, Outcome, Revocable, RotateError,
    SessionConfig,
};
use oqto_tests::{Ended, Home, end, signal};

/// How long certificates live that are renewed within a test. In the last third of it a busy machine has to renew one, and
/// in all of it to start a runner.
const LIFE: Duration = Duration::from_secs(12);

/// How long one lives that is to end within a test.
const LIFE_SHORT: Duration = Duration::from_secs(4);

/// How long a link may be silent before it counts as gone.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Bed {
    home: Home,
    control: Control,
    listener: Listener,
}

/// A runner in the foreground, ended in good order.
struct Runner(Child);

impl Runner {
    fn end(mut self, with: Signal) {
        signal(i32::try_from(self.0.id()).unwrap(), with);
        self.0.wait().unwrap();
    }
}

impl Bed {
    /// Certificates live so long.
    fn new(life: Duration) -> Self {
        Self::of(Home::new(), life)
    }

    /// The same home with another control, whose certificates live so long.
    async fn next(self, life: Duration) -> Self {
        self.control.close().await;
        Self::of(self.home, life)
    }

    fn of(home: Home, life: Duration) -> Self {
        let options = Options::under(home.path("data/oqto")).runner_life(life);
        let control = Control::open(options).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = control.listen(ListenOptions { address }).unwrap();
        Self {
            home,
            control,
            listener,
        }
    }

    /// The authority as another process has it.
    fn elsewhere(&self) -> Authority {
        Authority::open(&self.home.path("data/oqto/authority")).unwrap()
    }

    /// What `oqto-runner enrol` makes of a token.
    async fn enrol(&self, token: &str, pin: &str) -> Ended {
        let file = self.home.path("token");
        fs::write(&file, token).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let mut command = self.home.environment(&self.home.runner_program());
        command
            .args([
                "enrol",
                "--json",
                "--control",
                &self.listener.address().to_string(),
            ])
            .args(["--ca-pin", pin, "--token-file"])
            .arg(file)
            .arg("--state-dir")
            .arg(self.home.state());
        tokio::task::spawn_blocking(move || end(&mut command))
            .await
            .unwrap()
    }

    fn serve(&self) -> Runner {
        let mut command = self.home.environment(&self.home.runner_program());
        command
            .args([
                "serve",
                "--listen",
                "none",
                "--dial",
                &self.listener.address().to_string(),
            ])
            .arg("--state-dir")
            .arg(self.home.state());
        let log = fs::File::create(self.home.path("runner.log")).unwrap();
        Runner(command.stdin(Stdio::null()).stderr(log).spawn().unwrap())
    }

    fn token(&self, runner_id: Option<&RunnerId>) -> String {
        let authority = self.control.authority();
        let (token, _) = authority.create_token(PATIENCE, runner_id.cloned()).unwrap();
        token.reveal().to_owned()
    }
}

/// Reads a stream that never stops until something is so.
async fn read_until(events: &mut Events, what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited for {what}");
        let event = tokio::time::timeout(PATIENCE, events.next()).await.unwrap();
        event.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_dials_renews_follows_a_rotation_comes_again_and_is_cut_off_at_the_end() {
    let mut bed = Bed::new(LIFE);
    let mut records = bed.control.records();
    let first_pin = bed.control.authority().pin();
    let enrolled = bed.enrol(&bed.token(None), &first_pin).await;
    assert_eq!(enrolled.code, 0, "{enrolled:?}");
    assert_eq!(records.recv().await.unwrap().outcome, Outcome::Enrolled);
    let serving = bed.serve();
    let accepted = tokio::time::timeout(PATIENCE, bed.listener.accept())
        .await
        .unwrap();
    let runner = accepted.unwrap();
    let link = runner.link();
    let config = SessionConfig {
        harness: "exec".to_owned(),
        cwd: Some(bed.home.workspace().display().to_string()),
        ..SessionConfig::default()
    };
    let session = runner.create(config).await.unwrap();
    let mut events = session.events().await.unwrap();
    session
        .prompt("while :; do echo on; sleep 0.02; done")
        .await
        .unwrap();

    // The stream does not notice that it is renewed. Right behind that the next time is some seconds away.
    read_until(&mut events, "a renewal", || {
        let record = records.try_recv();
        record.is_ok_and(|record| record.outcome == Outcome::Renewed)
    })
    .await;

    // A whole rotation, each step as soon as the runner is ready for it and not before.
    let authority = bed.elsewhere();
    let told = |number| authority.issued().unwrap()[0].told == number;
    let next = authority.rotate().unwrap();
    read_until(&mut events, "the runner to know the next root", || told(1)).await;
    authority.switch(false).unwrap();
    let error = authority.drop_old(false).unwrap_err();
    assert!(matches!(error, RotateError::LocksOut { .. }), "{error:?}");
    read_until(&mut events, "a certificate of the next root", || {
        authority.issued().unwrap()[0].root == next.id
    })
    .await;
    assert!(!link.has_changed().unwrap(), "one link carried all of it");
    // The runner hangs up on who came with a certificate of the old root, and comes again: the stream goes on.
    authority.drop_old(false).unwrap();
    read_until(
        &mut events,
        "the runner to know that the old root is gone",
        || told(3),
    )
    .await;
    let serial = || authority.issued().unwrap()[0].serial.clone();
    let issued = serial();
    read_until(&mut events, "one more renewal", || serial() != issued).await;

    // A runner that was killed comes in again by what it has kept.
    let link = runner.link();
    serving.end(Signal::SIGKILL);
    let serving = bed.serve();
    // The link of the one that was killed counts as one until the next comes.
    read_until(&mut events, "the stream to go on", || {
        link.has_changed().unwrap() && link.borrow().is_connected()
    })
    .await;

    let what = Revocable::Runner(runner.id().clone());
    authority.revoke(&what, None).unwrap();
    let revoked = Instant::now();
    let error = loop {
        match events.next().await.unwrap() {
            Ok(envelope) => assert!(!matches!(envelope.event, Event::SessionClosed(_))),
            Err(error) => break error,
        }
    };
    // It is cut off, and not found by its silence.
    assert!(revoked.elapsed() < SILENCE_MAX, "{:?}", revoked.elapsed());
    let mut causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    assert!(
        causes.any(|cause| cause.to_string().ends_with("was revoked")),
        "{error:?}"
    );
    serving.end(Signal::SIGTERM);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_whose_certificate_has_ended_comes_back_by_a_token_for_its_name() {
    let bed = Bed::new(LIFE_SHORT);
    let pin = bed.control.authority().pin();
    let forged = "oqto1-".to_owned() + &"a".repeat(52);
    let refused = bed.enrol(&forged, &pin).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("does not take the token"), "{refused:?}");
    let other_pin = format!("sha256:{}", "0".repeat(64));
    let token = bed.token(None);
    let refused = bed.enrol(&token, &other_pin).await;
    assert_eq!(refused.code, 4, "{refused:?}");
    // The token was not said to who has another pin.
    assert_eq!(bed.enrol(&token, &pin).await.code, 0);
    let before = bed.control.authority().issued().unwrap().remove(0);
    let now = || u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    while now() <= before.not_after + 1000 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut bed = bed.next(PATIENCE).await;
    let token = bed.token(Some(&before.runner_id));
    let again = bed.enrol(&token, &pin).await;
    assert_eq!(again.code, 0, "{again:?}");
    let after = bed.control.authority().issued().unwrap().remove(0);
    assert_eq!((&after.runner_id, after.key), (&before.runner_id, before.key));
    assert_ne!(after.serial, before.serial);
    let serving = bed.serve();
    let accepted = tokio::time::timeout(PATIENCE, bed.listener.accept())
        .await
        .unwrap();
    assert_eq!(accepted.unwrap().sessions().await.unwrap(), []);
    serving.end(Signal::SIGTERM);
}
