//! Where a runner's private key may be kept, and what happens where it is not, or twice.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use linux_keyutils::{Key, KeyRing, KeyRingIdentifier};
use oqto_tests::{Home, end, not_run, wait_until};

/// A runner that has a certificate and does not run, and its key, which is nowhere but here.
struct Keyless {
    home: Home,
    key: String,
    name: String,
}

impl Keyless {
    fn new() -> Self {
        let home = Home::new();
        assert_eq!(home.sh("true").code, 0);
        assert_eq!(home.stop(), []);
        let identity = home.state().join("identity");
        let key = fs::read_to_string(identity.join("key.pem")).unwrap();
        let name = fs::read_to_string(identity.join("runner-id")).unwrap();
        fs::remove_file(identity.join("key.pem")).unwrap();
        Self { home, key, name }
    }

    fn serve(&self) -> Command {
        let mut command = self.home.environment(&self.home.runner_program());
        command.args(["serve", "--state-dir"]).arg(self.home.state());
        command
    }

    fn put_back(&self) {
        let path = self.home.state().join("identity/key.pem");
        fs::write(&path, &self.key).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A directory as the service manager makes one, with the key in it.
    fn credentials(&self) -> PathBuf {
        let dir = self.home.directory("credentials");
        fs::write(dir.join("oqto-runner.key"), &self.key).unwrap();
        dir
    }

    /// That the runner of `command` serves with the key that its certificate is for.
    fn serves(&self, command: &mut Command) {
        let mut child = Ends(command.stderr(Stdio::null()).spawn().unwrap());
        wait_until("the runner to listen", || self.home.runner_pid());
        assert_eq!(self.home.sh("echo here").ok(), "here\n");
        assert!(!self.home.state().join("identity/key.pem").exists());
        assert_eq!(self.home.stop(), []);
        assert_eq!(child.0.wait().unwrap().code(), Some(0));
    }
}

/// A child that does not outlive a test that fails.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

#[test]
fn a_key_may_be_a_credential_of_the_service_manager() {
    let runner = Keyless::new();
    let credentials = runner.credentials();
    runner.serves(runner.serve().env("CREDENTIALS_DIRECTORY", &credentials));
    // One that is too much for a key is none.
    fs::write(credentials.join("oqto-runner.key"), runner.key.repeat(40)).unwrap();
    end(runner.serve().env("CREDENTIALS_DIRECTORY", &credentials))
        .failed(125, &["oqto-runner.key is not a key in PEM"]);
}

#[test]
fn a_key_may_stand_in_the_kernels_keyring() {
    let name = "a_key_may_stand_in_the_kernels_keyring";
    let Ok(ring) = KeyRing::from_special_id(KeyRingIdentifier::Session, true) else {
        return not_run(name, "this host has no keyrings, or forbids them");
    };
    let runner = Keyless::new();
    // Children have the session of who started them.
    let Ok(key) = ring.add_key(&format!("oqto-runner:{}", runner.name), &runner.key) else {
        return not_run(name, "this host gives no key to its keyring");
    };
    let key = Unlinked(ring, key);
    runner.serves(&mut runner.serve());
    drop(key);
    end(&mut runner.serve()).failed(125, &["its key is gone", &format!("oqto-runner:{}", runner.name)]);
}

/// A key that does not stay behind.
struct Unlinked(KeyRing, Key);

impl Drop for Unlinked {
    fn drop(&mut self) {
        let _ = self.0.unlink_key(self.1);
    }
}

#[test]
fn a_runner_whose_key_is_gone_makes_no_other_and_one_with_two_does_not_choose() {
    let runner = Keyless::new();
    end(&mut runner.serve()).failed(125, &["its key is gone", "put it back", "enrol this runner anew"]);
    assert!(!runner.home.state().join("identity/key.pem").exists());
    runner.put_back();
    let credentials = runner.credentials();
    end(runner.serve().env("CREDENTIALS_DIRECTORY", &credentials)).failed(
        125,
        &["two keys", "identity/key.pem", "oqto-runner.key", "remove one"],
    );
}

#[test]
fn what_others_could_read_or_change_keeps_a_runner_from_starting() {
    let runner = Keyless::new();
    runner.put_back();
    for (place, mode, closed) in [
        ("identity", 0o750, 0o700),
        ("identity/key.pem", 0o640, 0o600),
        ("identity/certificate.json", 0o604, 0o600),
        ("events", 0o705, 0o700),
        ("sessions", 0o733, 0o711),
        ("workspaces", 0o755, 0o711),
    ] {
        let path = runner.home.state().join(place);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let refused = end(&mut runner.serve());
        refused.failed(125, &[place, &format!("chmod {closed:04o}")]);
        // What it says mends it.
        fs::set_permissions(&path, fs::Permissions::from_mode(closed)).unwrap();
    }
    assert_eq!(runner.home.sh("echo mended").ok(), "mended\n");
}
