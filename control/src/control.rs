//! The way in: what belongs to one control, and the runners that it reaches.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use oqto_protocol::id::{ControlId, RunnerId};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use crate::authority::{Authority, AuthorityError, Record};
#[cfg(feature = "local")]
use crate::bootstrap::Place;
use crate::bounds::{LEAF_LIFE_MAX, RUNNER_LIFE, TELLING_MAX};
use crate::connection::{
    ConnectError, Dialer, Fixed, Line, ListenError, Listening, Registrar, RunnerAddr, Way as _,
};
use crate::fleet::{RecordError, Records};
use crate::history::HistoryStore;
use crate::listener::{ListenOptions, Listener};
use crate::posture::Posture;
use crate::runner::Runner;

/// The name of a control that was given none. An authority rarely has more than one.
const CONTROL_ID: &str = "main";

/// Neither the variable that names the directory nor `HOME` is set to an absolute path.
#[derive(Debug, thiserror::Error)]
#[error("neither {variable} nor HOME is an absolute path")]
pub struct NoHome {
    variable: &'static str,
}

/// Why a control cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its authority cannot be.
    #[error("cannot open the authority")]
    Authority(#[from] AuthorityError),
    /// Its name is none.
    #[error("the control's name is not one")]
    Name(#[from] oqto_protocol::id::BadId),
}

/// Where a control keeps what is its own, and who it is.
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    authority_dir: PathBuf,
    records_dir: PathBuf,
    control_id: Option<ControlId>,
    runner_life: Duration,
    history: Option<Arc<dyn HistoryStore>>,
    posture: Option<Posture>,
    #[cfg(feature = "local")]
    local_dir: PathBuf,
    #[cfg(feature = "local")]
    runner_program: Option<PathBuf>,
}

impl Options {
    /// The longest life that a runner's certificate gets.
    pub const RUNNER_LIFE_MAX: Duration = LEAF_LIFE_MAX;

    /// The places of the user who runs this process: authority and records in `$XDG_DATA_HOME/oqto`, the private
    /// runner in `$XDG_STATE_HOME/oqto/runner`. For root the latter is `/var/lib/oqto/runner` unless the variable is
    /// set: agents do not run as root, and no other user can enter root's home.
    ///
    /// # Errors
    /// When the environment names no home.
    pub fn of_user() -> Result<Self, NoHome> {
        let data = user_dir("XDG_DATA_HOME", ".local/share")?.join("oqto");
        let options = Self::under(data);
        #[cfg(feature = "local")]
        let options = options.local_dir(default_local_dir()?);
        Ok(options)
    }

    /// Where a user's own rules for runners are, if there are any: `$XDG_CONFIG_HOME/oqto/posture.toml`. Nothing reads
    /// them by itself: see [`Posture::read`] and [`Options::posture`].
    ///
    /// # Errors
    /// When the environment names no home.
    pub fn posture_file() -> Result<PathBuf, NoHome> {
        Ok(user_dir("XDG_CONFIG_HOME", ".config")?.join("oqto/posture.toml"))
    }

    /// Everything below one directory; for tests, and for programs that keep more than one control.
    pub fn under(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            authority_dir: dir.join("authority"),
            records_dir: dir.join("runners"),
            control_id: None,
            runner_life: RUNNER_LIFE,
            history: None,
            posture: None,
            #[cfg(feature = "local")]
            local_dir: dir.join("runner"),
            #[cfg(feature = "local")]
            runner_program: None,
        }
    }

    /// Who this control is; without it `main`. Controls that share an authority should differ.
    pub fn control_id(mut self, id: ControlId) -> Self {
        self.control_id = Some(id);
        self
    }

    /// How long the certificates live that runners get for a token or for the one they have: 24 hours without it, 30 days
    /// at most. A runner renews at two thirds of it, while a control is connected.
    pub fn runner_life(mut self, life: Duration) -> Self {
        self.runner_life = life.min(Self::RUNNER_LIFE_MAX);
        self
    }

    /// Keeps every event that a stream hands out. Without a store nothing is acknowledged, and a runner keeps what
    /// its own retention says.
    pub fn history(mut self, store: Arc<dyn HistoryStore>) -> Self {
        self.history = Some(store);
        self
    }

    /// What runners must be before they are given work. Each is asked on every connection, before the first session is
    /// made there or started again; one that is otherwise is refused with [`CommandError::Posture`].
    ///
    /// [`CommandError::Posture`]: crate::CommandError::Posture
    pub fn posture(mut self, posture: Posture) -> Self {
        self.posture = Some(posture);
        self
    }

    /// Where the private runner of this machine keeps its state.
    #[cfg(feature = "local")]
    pub fn local_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.local_dir = dir.into();
        self
    }

    /// The program of the private runner; without it the one that `OQTO_RUNNER` names, else `oqto-runner` beside
    /// this program, else on the `PATH`.
    #[cfg(feature = "local")]
    pub fn runner_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.runner_program = Some(program.into());
        self
    }
}

/// One control: an authority, and the runners that trust it. Clones are the same control.
#[derive(Clone, Debug)]
pub struct Control {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dialer: Arc<Dialer>,
    records: Arc<Records>,
    history: Option<Arc<dyn HistoryStore>>,
    #[cfg(feature = "local")]
    place: Place,
}

impl Control {
    /// Opens a control; its authority is made at first use. Reads and writes a few small files.
    ///
    /// # Errors
    /// When the authority's files cannot be used.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let Options {
            authority_dir,
            records_dir,
            control_id,
            runner_life,
            history,
            posture,
            #[cfg(feature = "local")]
            local_dir,
            #[cfg(feature = "local")]
            runner_program,
        } = options;
        let authority = Authority::open(&authority_dir)?;
        let control_id = match control_id {
            Some(id) => id,
            None => CONTROL_ID.parse()?,
        };
        let registrar = Registrar::new(authority, control_id, runner_life);
        let dialer = Arc::new(Dialer::new(registrar, posture));
        let records = Arc::new(Records::new(records_dir));
        let inner = Inner {
            #[cfg(feature = "local")]
            place: Place {
                dir: local_dir,
                program: runner_program,
                dialer: Arc::clone(&dialer),
                records: Arc::clone(&records),
                wanted: None,
            },
            dialer,
            records,
            history,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Its authority.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        self.inner.dialer.authority()
    }

    /// What runners must be before they are given work.
    #[must_use]
    pub fn posture(&self) -> Option<&Posture> {
        self.inner.dialer.posture()
    }

    /// Who this control is.
    #[must_use]
    pub fn id(&self) -> &ControlId {
        self.inner.dialer.registrar().control_id()
    }

    /// What the authority grants and refuses in this process from now on, as it is written to its audit log. Who reads
    /// slowly loses the oldest.
    #[must_use]
    pub fn records(&self) -> broadcast::Receiver<Record> {
        self.inner.dialer.registrar().records()
    }

    /// Takes in runners that dial by themselves, and those that want their first certificate and have a token.
    ///
    /// # Errors
    /// When the address is taken, or this control cannot certify itself.
    pub fn listen(&self, options: ListenOptions) -> Result<Listener, ListenError> {
        let inner = &self.inner;
        let listening = Listening::open(Arc::clone(&inner.dialer), options.address)?;
        Ok(Listener::new(listening, inner.history.clone()))
    }

    /// Connects to a runner whose certificate is of this control's authority. This dials once; when the link is lost
    /// later it is dialled again as long as somebody needs it.
    ///
    /// # Errors
    /// When nobody answers, who answers is not that runner, or the runner does not welcome this control.
    pub async fn connect(&self, runner: RunnerAddr) -> Result<Runner, ConnectError> {
        let inner = &self.inner;
        let way = Fixed {
            dialer: Arc::clone(&inner.dialer),
            at: runner,
        };
        let (at, connection) = way.dial().await?;
        let id = at.id.clone();
        let line = Line::new(Arc::clone(&inner.dialer), Box::new(way), at, connection);
        Ok(Runner::new(id, line, inner.history.clone()))
    }

    /// The private runner of this machine: the one that runs, or one that is started for it. When its process dies, it
    /// is started again as soon as somebody needs it, and finds its sessions.
    ///
    /// # Errors
    /// When no runner's program is found, or it does not start; what it said is in the error.
    #[cfg(feature = "local")]
    pub async fn local(&self) -> Result<Runner, crate::LocalError> {
        let inner = &self.inner;
        let (at, connection) = inner.place.reach().await?;
        let id = at.id.clone();
        let way = Place {
            wanted: Some(id.clone()),
            ..inner.place.clone()
        };
        let line = Line::new(Arc::clone(&inner.dialer), Box::new(way), at, connection);
        Ok(Runner::new(id, line, inner.history.clone()))
    }

    /// Where the private runner of this machine says it is, if it says so.
    #[cfg(feature = "local")]
    #[must_use]
    pub fn local_addr(&self) -> Option<RunnerAddr> {
        crate::bootstrap::found(&self.inner.place.dir).map(|neighbour| neighbour.at)
    }

    /// The runners that were remembered, by name.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn runners(&self) -> Result<Vec<RunnerAddr>, RecordError> {
        self.inner.records.list()
    }

    /// The runner of that name, if it was remembered.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn runner(&self, id: &RunnerId) -> Result<Option<RunnerAddr>, RecordError> {
        self.inner.records.find(id)
    }

    /// Remembers where a runner is.
    ///
    /// # Errors
    /// When its record cannot be written.
    pub fn remember(&self, runner: &RunnerAddr) -> Result<(), RecordError> {
        self.inner.records.put(runner)
    }

    /// Forgets where a runner is.
    ///
    /// # Errors
    /// When its record cannot be removed.
    pub fn forget(&self, id: &RunnerId) -> Result<(), RecordError> {
        self.inner.records.remove(id)
    }

    /// Connects to every runner that was remembered, and to the private one of this machine if it runs, so that each hears
    /// the authority's last trust statement; and whether it was reached. Runners that dial by themselves hear it from
    /// whoever listens.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn tell_runners(&self) -> Result<Vec<(RunnerId, Result<(), ConnectError>)>, RecordError> {
        let mut known = self.runners()?;
        #[cfg(feature = "local")]
        known.extend(
            self.local_addr()
                .filter(|local| known.iter().all(|runner| runner.id != local.id)),
        );
        let revoked = self.authority().revoked().runners;
        known.retain(|runner| revoked.iter().all(|revoked| revoked.id != runner.id));
        let (mut known, mut dials, mut told) = (known.into_iter(), JoinSet::new(), Vec::new());
        loop {
            while dials.len() < TELLING_MAX
                && let Some(at) = known.next()
            {
                let control = self.clone();
                dials.spawn(async move { (at.id.clone(), control.connect(at).await.map(drop)) });
            }
            match dials.join_next().await {
                Some(Ok(reached)) => told.push(reached),
                // It was cut off with its runtime.
                Some(Err(_)) => {}
                None => break,
            }
        }
        told.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(told)
    }

    /// Moves every connection to a new UDP socket; the runners follow, and nothing is lost or said again. Not needed
    /// when this host's address changes, which the connections survive by themselves: it is for who knows that the port
    /// is of no more use, as behind a NAT that has forgotten it.
    ///
    /// # Errors
    /// When the system gives no socket; then all stays as it is.
    pub fn rebind(&self) -> std::io::Result<()> {
        self.inner.dialer.rebind()
    }

    /// Closes every connection for good and waits until the runners were told. Without it they find out by themselves,
    /// after a silence. Commands that wait, and streams of events, end with [`ConnectError::Closed`].
    pub async fn close(&self) {
        self.inner.dialer.close().await;
    }
}

/// A directory as the XDG base directory specification has it: what is not absolute counts as not set.
fn user_dir(variable: &'static str, in_home: &str) -> Result<PathBuf, NoHome> {
    set_dir(std::env::var_os(variable))
        .or_else(|| Some(set_dir(std::env::var_os("HOME"))?.join(in_home)))
        .ok_or(NoHome { variable })
}

fn set_dir(value: Option<OsString>) -> Option<PathBuf> {
    value.map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(feature = "local")]
fn default_local_dir() -> Result<PathBuf, NoHome> {
    let variable = "XDG_STATE_HOME";
    if set_dir(std::env::var_os(variable)).is_none() && crate::bootstrap::is_root() {
        return Ok(PathBuf::from("/var/lib/oqto/runner"));
    }
    Ok(user_dir(variable, ".local/state")?.join("oqto/runner"))
}
