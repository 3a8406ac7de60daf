//! Everything that is to be broken: a home, networks, the model, the runner, two controls; and how each is broken.

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use oqto_tests::{Agents, Home, Model, Process, agents, built, end, signal, wait_until};

use crate::dice::Dice;
use crate::follower::{ROLE, Role, answers, kept};
use crate::net::{Net, RUNNER};
use crate::plan::{PLACES, Place};

/// The controls of a bed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Driver,
    Watcher,
}

/// What ends first goes last: the home fails the test if anything of it still runs.
pub(crate) struct Bed {
    driver: Option<Child>,
    watcher: Option<Child>,
    /// Runners that this process started, to be waited for.
    runners: Vec<Child>,
    model: Model,
    pub(crate) net: Option<Net>,
    _agents: Agents,
    pub(crate) home: Home,
}

impl Bed {
    /// A bed with a runner that was given its identity. `net` is none where this host gives no networks of its own.
    pub(crate) fn new(net: Option<Net>) -> Self {
        let (home, agents) = (Home::new(), agents());
        let (address, port) = match &net {
            Some(_) => (RUNNER, 7443),
            // Free now, and nobody else on a test's host asks for a certain one.
            None => (
                "127.0.0.1",
                UdpSocket::bind("127.0.0.1:0")
                    .unwrap()
                    .local_addr()
                    .unwrap()
                    .port(),
            ),
        };
        home.configure(&format!(
            "listen = \"{address}:{port}\"\n[harness.pi]\nprogram = {:?}\nconfig_dir = {:?}\n",
            agents.bin().join("pi"),
            home.path("harness-config")
        ));
        let enter = net.as_ref().map(Net::to_runner).unwrap_or_default();
        // Whoever starts the runner starts it in its own network.
        home.program(
            "runner",
            &format!(
                "#!/bin/sh\nexec {} {:?} \"$@\" --config {:?}\n",
                enter.join(" "),
                built("oqto-runner"),
                home.path("runner.toml")
            ),
        );
        let model = Model::start_by(
            &enter,
            home.dir(),
            &["--log", home.path("model.log").to_str().unwrap()],
        );
        home.file("harness-config/models.json", &model.for_pi());
        for name in ["answers", "history-driver", "history-watcher"] {
            fs::create_dir(home.path(name)).unwrap();
        }
        let bed = Self {
            driver: None,
            watcher: None,
            runners: Vec::new(),
            model,
            net,
            _agents: agents,
            home,
        };
        let begun = end(bed.in_control(&built("oqtoctl")).arg("sessions"));
        assert_eq!(begun.code, 0, "{}", begun.err);
        bed
    }

    /// A program in the controls' network, with this home's environment.
    fn in_control(&self, program: &Path) -> Command {
        match &self.net {
            Some(net) => {
                let mut command = self.home.environment(Path::new("setpriv"));
                // It ends with this test also when that is killed.
                command.args(["--pdeathsig", "KILL", "--"]);
                command.args(net.to_control()).arg(program);
                command
            }
            None => self.home.environment(program),
        }
    }

    pub(crate) fn history(&self, who: Who) -> PathBuf {
        self.home.path(match who {
            Who::Driver => "history-driver",
            Who::Watcher => "history-watcher",
        })
    }

    pub(crate) fn answers(&self) -> PathBuf {
        self.home.path("answers")
    }

    /// Nothing more is said from now on.
    pub(crate) fn enough(&self) {
        fs::write(self.home.path("enough"), "").unwrap();
    }

    pub(crate) fn is_calm_over(&self) -> bool {
        self.home.path("calm-is-over").exists()
    }

    /// Starts a control, unless it runs.
    pub(crate) fn start(&mut self, who: Who) {
        if self.control(who).is_some() {
            return;
        }
        let role = Role {
            drives: who == Who::Driver,
            data: self.home.path("data/oqto"),
            state: self.home.state(),
            program: self.home.runner_program(),
            workspace: self.home.workspace(),
            history: self.history(who),
            answers: self.answers(),
            calm: self.home.path("calm-is-over"),
            enough: self.home.path("enough"),
        };
        let said = fs::File::options()
            .append(true)
            .create(true)
            .open(self.home.path(&format!("{who:?}.log")))
            .unwrap();
        let child = self
            .in_control(&std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--ignored",
                "--nocapture",
                "a_control_that_may_be_killed",
            ])
            .env(ROLE, serde_json::to_string(&role).unwrap())
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .unwrap();
        match who {
            Who::Driver => self.driver = Some(child),
            Who::Watcher => self.watcher = Some(child),
        }
    }

    /// A control, while it runs. One that has ended by itself must have ended well.
    fn control(&mut self, who: Who) -> Option<&mut Child> {
        let log = self.home.path(&format!("{who:?}.log"));
        let control = match who {
            Who::Driver => &mut self.driver,
            Who::Watcher => &mut self.watcher,
        };
        let child = control.as_mut()?;
        if let Some(status) = child.try_wait().unwrap() {
            let said = fs::read_to_string(log).unwrap_or_default();
            assert!(
                status.success(),
                "the {who:?} ended with {status}:\n{}",
                last_lines(&said)
            );
        }
        control.as_mut()
    }

    pub(crate) fn kill_control(&mut self, who: Who) {
        if let Some(child) = self.control(who) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        match who {
            Who::Driver => self.driver = None,
            Who::Watcher => self.watcher = None,
        }
    }

    /// Waits until both controls have seen the end of every session.
    pub(crate) fn wait_for_controls(&mut self, patience: std::time::Duration) {
        let until = std::time::Instant::now() + patience;
        loop {
            let over = [Who::Driver, Who::Watcher].map(|who| match self.control(who) {
                Some(child) => child.try_wait().unwrap().is_some(),
                None => false,
            });
            if over == [true, true] {
                return;
            }
            if std::time::Instant::now() > until {
                for who in [Who::Driver, Who::Watcher] {
                    let log = fs::read_to_string(self.home.path(&format!("{who:?}.log"))).unwrap_or_default();
                    eprintln!("the {who:?} said:\n{}", last_lines(&log));
                }
                panic!("the controls do not end: {over:?}");
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// The runner's process, if it lives: by its own word, which another process must not stand for.
    pub(crate) fn runner(&self) -> Option<Process> {
        let process = Process {
            pid: self.home.runner_pid()?,
            words: String::new(),
        };
        let words = fs::read(format!("/proc/{}/cmdline", process.pid)).ok()?;
        let config = self.home.path("runner.toml");
        let is_ours = String::from_utf8_lossy(&words).contains(config.to_str().unwrap());
        (is_ours && process.lives()).then_some(process)
    }

    pub(crate) fn kill_runner(&mut self) -> bool {
        let Some(runner) = self.runner() else { return false };
        runner.kill();
        wait_until("the runner to die", || (!runner.lives()).then_some(()));
        true
    }

    /// Ends the runner alone, by the signal that says so, and waits until it is gone.
    pub(crate) fn hand_over(&mut self) -> bool {
        let Some(runner) = self.runner() else { return false };
        signal(runner.pid, Signal::SIGUSR2);
        wait_until("the runner to leave", || (!runner.lives()).then_some(()));
        true
    }

    pub(crate) fn control_pid(&mut self, who: Who) -> Option<i32> {
        self.control(who).map(|child| i32::try_from(child.id()).unwrap())
    }

    /// Starts a runner. Where one is started by somebody else already, that one stays.
    pub(crate) fn start_runner(&mut self) {
        self.runners
            .retain_mut(|child| child.try_wait().unwrap().is_none());
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.home.path("runner.log"))
            .unwrap();
        let runner = self
            .home
            .environment(&self.home.runner_program())
            .args(["serve", "--state-dir"])
            .arg(self.home.state())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.runners.push(runner);
    }

    /// Kills one of a session's own processes: its shim, or something below it. What it was. Nothing is done to one that has
    /// answered nothing yet: it has no session of its own that it could go on with, and would be closed.
    pub(crate) fn kill_inside(&self, place: Place, dice: &mut Dice) -> Option<String> {
        let dir = self.home.state().join("sessions").join(place.session().as_str());
        if answers(&self.answers(), place).is_empty() {
            return None;
        }
        let shim = shim_in(&dir)?;
        let mut all = vec![shim];
        let mut at = 0;
        while at < all.len() {
            all.extend(children(all[at]));
            at += 1;
        }
        let pid = *dice.one_of(&all);
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        // Still below its shim, so its number is nobody else's.
        if pid != shim && !all.contains(&parent(pid)?) {
            return None;
        }
        signal(pid, Signal::SIGKILL);
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        Some(words.chars().take(60).collect())
    }

    /// What the model was asked, and what came of it: the prompt, which of its answers, how that ended.
    pub(crate) fn asked(&self) -> Vec<(String, u64, String)> {
        let text = fs::read_to_string(self.home.path("model.log")).unwrap_or_default();
        let entries = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        entries
            .filter(|entry| entry["prompt"].is_string())
            .map(|entry| {
                (
                    entry["prompt"].as_str().unwrap().to_owned(),
                    entry["step"].as_u64().unwrap(),
                    entry["status"].to_string(),
                )
            })
            .collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = &self.model;
        for child in self.driver.iter_mut().chain(&mut self.watcher) {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for place in PLACES {
                for who in [Who::Driver, Who::Watcher] {
                    let heard = kept(&self.history(who), place);
                    let last = heard.iter().rev().take(12).rev();
                    let last: Vec<_> = last
                        .map(|event| format!("{event:?}").chars().take(400).collect::<String>())
                        .collect();
                    eprintln!("what the {who:?} heard last of {place:?}: {last:#?}");
                }
            }
            // The home ends whatever is about it; these are to be waited for all the same.
            for runner in &mut self.runners {
                let _ = runner.kill();
                let _ = runner.wait();
            }
        }
    }
}

/// The process that is the shim of the session in a directory.
fn shim_in(dir: &Path) -> Option<i32> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        words.starts_with("oqto-runner shim") && words.contains(dir.to_str().unwrap())
    })
}

fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().filter_map(Result::ok);
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let lists: String = lists.map(|list| list + " ").collect();
    lists
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
