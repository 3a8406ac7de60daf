//! What can be said on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use oqto_protocol::id::{ControlId, RunnerId};

use super::time::{BadSpan, Span};
use crate::{Options, Serial};

const AFTER_HELP: &str = "\
Examples:
  oqtoctl run \"What is in this directory?\"
  oqtoctl run --keep --policy readonly --model anthropic/claude-sonnet \"Review the last commit\"
  git diff | oqtoctl run -
  oqtoctl run --harness claude-agent-acp --policy open-net --env ANTHROPIC_API_KEY \"Explain this repository\"
  oqtoctl exec -- cargo test --workspace
  oqtoctl attach s-4f --from 120
  oqtoctl --json run \"List the open questions\" | jq -r 'select(.event == \"stream.text_delta\").delta'

Exit codes:
  0    done
  1    the agent reported an error; attest: a rule does not hold
  2    the command line is wrong
  125  oqtoctl or the runner failed
  130  interrupted
  exec ends with the program's own code: 128 + n when signal n ended it, 126 when it cannot
  be run, 127 when it is not found.

Environment:
  OQTO_RUNNER     the program of the private runner of this machine
  XDG_CONFIG_HOME what runners have to be is in oqto/posture.toml there; see oqtoctl attest --help
  XDG_DATA_HOME   the authority and the known runners are in oqto/ there
  XDG_STATE_HOME  the private runner keeps its state in oqto/runner there
  NO_COLOR        no colours, even on a terminal";

/// Runs AI coding agents in a sandbox, here or elsewhere.
#[derive(Debug, Parser)]
#[command(name = "oqtoctl", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) options: GlobalOptions,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// What holds for every verb.
#[derive(Debug, Args)]
pub(super) struct GlobalOptions {
    /// Write JSON: one canonical event a line for streams, one object for the rest
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// The private runner of this machine, started when it is needed (the default)
    #[arg(long, global = true, conflicts_with = "runner")]
    pub(super) local: bool,
    /// A known runner; see `oqtoctl runners`
    #[arg(long, global = true, value_name = "ID")]
    pub(super) runner: Option<RunnerId>,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Give an agent a task and show its work until it is done
    #[command(
        after_help = "Examples:\n  oqtoctl run \"Fix the failing test\"\n  oqtoctl run --keep -  < task.md"
    )]
    Run(Run),
    /// Run a program in the sandbox, with its own output and exit code
    #[command(
        after_help = "Examples:\n  oqtoctl exec -- make test\n  oqtoctl exec --policy readonly -- ls -la"
    )]
    Exec(Exec),
    /// List the sessions of a runner
    Sessions,
    /// Show the events of a session as they come
    #[command(after_help = "Examples:\n  oqtoctl attach s-4f\n  oqtoctl attach s-4f --from 120 --json")]
    Attach(Attach),
    /// Say something to a session that waits, and show its work until it is done
    Prompt(Talk),
    /// Say something to a session in the middle of its work
    Steer(Talk),
    /// Say something to a session for when it is done with its work
    FollowUp(Talk),
    /// Answer what a session asks
    #[command(after_help = "Examples:\n  oqtoctl answer s-4f req-1 allow\n  oqtoctl answer s-4f req-2 --no")]
    Answer(Answer),
    /// Tell a session to stop the work at hand
    Abort(Which),
    /// Start the agent of a session again, with its own memory of it: one that is dormant, or one that hangs
    #[command(
        after_help = "Examples:\n  oqtoctl restart s-4f\n  API_KEY=… oqtoctl restart s-4f --env API_KEY"
    )]
    Restart(Restart),
    /// End a session; its history stays
    Close(Which),
    /// Show how a session stands, and what its agent can do
    Show(Which),
    /// Show what was said in a session
    Messages(Which),
    /// List the models that a session can use
    Models(Which),
    /// Change the model of a session, how hard it thinks, how much it asks, or its title
    #[command(after_help = "\
Examples:
  oqtoctl set s-4f --model anthropic/claude-sonnet
  oqtoctl set s-4f --thinking high
  oqtoctl set s-4f --mode plan")]
    Set(Set),
    /// Give a session any command of the protocol, as JSON, and write its answer
    #[command(
        after_help = "Examples:\n  oqtoctl send s-4f '{\"cmd\":\"compact\"}'\n  oqtoctl send s-4f '{\"cmd\":\"shell\",\"command\":\"git status\"}'"
    )]
    Send(Send),
    /// List the known runners, or say where one is
    #[command(after_help = "Examples:\n  oqtoctl runners\n  oqtoctl runners add build-7 10.0.0.7:7440")]
    Runners {
        #[command(subcommand)]
        verb: Option<RunnersVerb>,
    },
    /// Show how a runner stands
    Status,
    /// Show what a runner is: its program, kernel, sandbox and policies, signed, and whether the posture's rules hold
    #[command(after_help = "\
Rules stand in oqto/posture.toml below XDG_CONFIG_HOME, for all runners under [all], for one under [runner.ID]:
  landlock_min = 4                       the version of landlock's interface
  seccomp = \"required\"                 the filter of system calls
  layers = [\"namespaces\", \"landlock\"]  layers that have to be enforced
  sandbox = \"holds\"                    what is tried from inside is stopped
  binary = [\"sha256:…\"]                the runner's program is one of these
  version_min = \"0.1\"                  the runner's version
  kernel_min = \"6.7\"                   the kernel's release
  policies = { workspace = \"sha256:…\" }
  max_age = \"1h\"                       ask again after so long
On a runner that does not keep them no session is made or started again.

Exit codes:
  0    every rule holds, or there is none
  1    a rule does not hold
  125  the runner cannot be asked, or what it says is not believed")]
    Attest(Attest),
    /// Wait for runners that dial: enrol those with a token, renew their certificates, show who comes
    #[command(
        after_help = "Examples:\n  oqtoctl listen\n  oqtoctl listen --address 10.0.0.1:7443 --runner-life 12h"
    )]
    Listen(Listen),
    /// Make, list and take back the tokens that buy a runner its first certificate
    #[command(
        after_help = "Examples:\n  oqtoctl token create > token\n  oqtoctl token create --runner-id build-7 --ttl 1h"
    )]
    Token {
        #[command(subcommand)]
        verb: TokenVerb,
    },
    /// Trust a runner, a control or a certificate no more, and cut its links
    #[command(
        after_help = "Examples:\n  oqtoctl revoke build-7 --reason \"the disk was sold\"\n  oqtoctl revoke --serial 5f3a…"
    )]
    Revoke(Revoke),
    /// Show the authority that runners and controls trust, and rotate its keys
    #[command(after_help = "\
A rotation has three steps, each refused while a runner with a valid certificate would be locked out by it:
  oqtoctl authority rotate    makes a next root, trusted beside the one that signs
  oqtoctl authority switch    makes the next root sign
  oqtoctl authority drop      trusts the old root no more, and removes its key")]
    Authority {
        #[command(subcommand)]
        verb: AuthorityVerb,
    },
    /// Write completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual page
    Man,
}

/// A runner that says what it is.
#[derive(Debug, Args)]
pub(super) struct Attest {
    /// The runner [default: the private one of this machine]
    #[arg(value_name = "RUNNER", conflicts_with_all = ["runner", "local"])]
    pub(super) id: Option<RunnerId>,
}

/// What becomes of the known runners.
#[derive(Debug, Subcommand)]
pub(super) enum RunnersVerb {
    /// Remember where a runner listens, instead of where it was
    Add {
        /// Its name, as its certificate says
        id: RunnerId,
        /// Where it listens
        #[arg(value_name = "ADDRESS:PORT")]
        address: SocketAddr,
    },
    /// Forget where a runner listens
    Remove {
        /// Its name
        id: RunnerId,
    },
}

/// A control that is dialled.
#[derive(Debug, Args)]
pub(super) struct Listen {
    /// Where to listen
    #[arg(long, default_value = "0.0.0.0:7443", value_name = "ADDRESS:PORT")]
    pub(super) address: SocketAddr,
    /// How long the certificates of runners live; they renew at two thirds of it
    #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = runner_life)]
    pub(super) runner_life: Span,
}

/// What the library would cut short without a word is refused here.
fn runner_life(text: &str) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|error: BadSpan| error.to_string())?;
    if span.0.is_zero() || span.0 > Options::RUNNER_LIFE_MAX {
        let most = Span(Options::RUNNER_LIFE_MAX);
        return Err(format!("a certificate lives from 1 s to {most}"));
    }
    Ok(span)
}

/// What becomes of tokens.
#[derive(Debug, Subcommand)]
pub(super) enum TokenVerb {
    /// Make a token and write it to standard output
    Create(TokenCreate),
    /// List the tokens that are open
    List,
    /// Take a token back
    Revoke(TokenRevoke),
}

/// A new token.
#[derive(Debug, Args)]
pub(super) struct TokenCreate {
    /// The only runner that it is for; needed to give a name that was given before to another key
    #[arg(long, value_name = "ID")]
    pub(super) runner_id: Option<RunnerId>,
    /// How long it is good
    #[arg(long, default_value = "15m", value_name = "DURATION")]
    pub(super) ttl: Span,
}

/// A token that is taken back.
#[derive(Debug, Args)]
pub(super) struct TokenRevoke {
    /// Its id, as `oqtoctl token list` shows it
    pub(super) id: String,
}

/// Who is trusted no more.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("whom").required(true).args(["runner_id", "serial", "control"]))]
pub(super) struct Revoke {
    /// A runner, for ever: the host needs another identity, and with it another name
    #[arg(value_name = "RUNNER")]
    pub(super) runner_id: Option<RunnerId>,
    /// One certificate, by its serial number; the runner may be enrolled again
    #[arg(long, value_name = "HEX")]
    pub(super) serial: Option<Serial>,
    /// A control, for ever
    #[arg(long, value_name = "ID")]
    pub(super) control: Option<ControlId>,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

/// What becomes of the authority.
#[derive(Debug, Subcommand)]
pub(super) enum AuthorityVerb {
    /// Show its name, its roots with their pins, who has certificates and who is revoked
    Show,
    /// Make a next root, trusted beside the one that signs
    Rotate,
    /// Make the next root the one that signs
    Switch(Forced),
    /// Trust the old roots no more, and remove their keys
    Drop(Forced),
}

/// A step that may lock somebody out.
#[derive(Debug, Args)]
pub(super) struct Forced {
    /// Also when it locks runners out, which have to be enrolled again
    #[arg(long)]
    pub(super) force: bool,
}

/// A new session.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// The agent
    #[arg(long, default_value = "pi")]
    pub(super) harness: String,
    /// The workspace [default: the current directory; for a runner elsewhere an empty one]
    #[arg(long, value_name = "DIR")]
    pub(super) cwd: Option<PathBuf>,
    /// The sandbox policy; see `oqtoctl status`
    #[arg(long)]
    pub(super) policy: Option<String>,
    /// The model, PROVIDER/MODEL or MODEL
    #[arg(long)]
    pub(super) model: Option<String>,
    /// A variable for the agent, such as the key of its provider, its value taken from oqtoctl's own environment; once
    /// for each
    #[arg(long, value_name = "NAME")]
    pub(super) env: Vec<String>,
    /// Leave the session open when the agent is done
    #[arg(long)]
    pub(super) keep: bool,
    /// The task; - reads it from standard input
    pub(super) prompt: String,
}

/// A program in the sandbox.
#[derive(Debug, Args)]
pub(super) struct Exec {
    /// The workspace [default: the current directory; for a runner elsewhere an empty one]
    #[arg(long, value_name = "DIR")]
    pub(super) cwd: Option<PathBuf>,
    /// The sandbox policy
    #[arg(long)]
    pub(super) policy: Option<String>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub(super) command: Vec<String>,
}

/// A session.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The session's id, or as much of its beginning as no other has
    pub(super) session: String,
}

/// A session whose agent is started again.
#[derive(Debug, Args)]
pub(super) struct Restart {
    /// The session's id, or as much of its beginning as no other has
    pub(super) session: String,
    /// A variable that the session was made with, its value taken from oqtoctl's own environment; once for each, where
    /// the runner does not know them any more
    #[arg(long, value_name = "NAME")]
    pub(super) env: Vec<String>,
}

/// A session to be watched.
#[derive(Debug, Args)]
pub(super) struct Attach {
    /// The session's id, or as much of its beginning as no other has
    pub(super) session: String,
    /// Only events from this number on
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) from: Option<u64>,
}

/// A session and what it is told.
#[derive(Debug, Args)]
pub(super) struct Talk {
    /// The session's id, or as much of its beginning as no other has
    pub(super) session: String,
    /// What to say; - reads it from standard input
    pub(super) text: String,
}

/// A session and what of it is changed.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["model", "thinking", "mode", "title"]))]
pub(super) struct Set {
    /// The session's id, or as much of its beginning as no other has
    pub(super) session: String,
    /// The model, PROVIDER/MODEL or MODEL; see `oqtoctl models`
    #[arg(long)]
    pub(super) model: Option<String>,
    /// How hard it thinks, as its agent calls it
    #[arg(long, value_name = "LEVEL")]
    pub(super) thinking: Option<String>,
    /// How much it asks before it acts, as its agent calls it
    #[arg(long)]
    pub(super) mode: Option<String>,
    /// What the session is called
    #[arg(long)]
    pub(super) title: Option<String>,
}

/// A session and a command as it is.
#[derive(Debug, Args)]
pub(super) struct Send {
    /// The session's id, or as much of its beginning as no other has
    pub(super) session: String,
    /// The command: its name as `cmd`, and its fields; - reads it from standard input
    #[arg(value_name = "JSON")]
    pub(super) command: String,
}

/// A session and what it asked.
#[derive(Debug, Args)]
pub(super) struct Answer {
    /// The session's id, or as much of its beginning as no other has
    pub(super) session: String,
    /// The request, as the session named it
    pub(super) request: String,
    /// The choice or the text
    pub(super) value: Option<String>,
    /// Confirm
    #[arg(long, conflicts_with_all = ["no", "cancel", "value"])]
    pub(super) yes: bool,
    /// Do not confirm
    #[arg(long, conflicts_with_all = ["cancel", "value"])]
    pub(super) no: bool,
    /// Give no answer
    #[arg(long, conflicts_with = "value")]
    pub(super) cancel: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_life_that_no_certificate_gets_is_refused() {
        let listen = |life| Cli::try_parse_from(["oqtoctl", "listen", "--runner-life", life]);
        for (life, is_one) in [
            ("0s", false),
            ("1s", true),
            ("30d", true),
            ("31d", false),
            ("1", false),
        ] {
            assert_eq!(listen(life).is_ok(), is_one, "{life}");
        }
    }

    #[test]
    fn what_follows_the_program_is_the_programs_own() {
        let cli = Cli::try_parse_from(["oqtoctl", "exec", "--", "ls", "--json", "-la"]).unwrap();
        assert!(!cli.options.json);
        let Verb::Exec(exec) = cli.verb else {
            panic!("{:?}", cli.verb)
        };
        assert_eq!(exec.command, ["ls", "--json", "-la"]);
        let cli = Cli::try_parse_from(["oqtoctl", "exec", "ls", "--json", "-la"]).unwrap();
        assert!(!cli.options.json);
        // What stands before it is not: a mistyped option is no program.
        assert!(Cli::try_parse_from(["oqtoctl", "exec", "--jsn", "--", "ls"]).is_err());
    }
}
