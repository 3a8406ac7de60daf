//! The edge: parse, dispatch, tell errors once, choose the exit code.

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};

use super::args::{Cli, GlobalOptions, TokenVerb, Verb};
use super::attest::Fitness;
use super::drive::{Ending, interrupts, or_interrupted};
use super::error::CliError;
use super::exec::{Ran, exec};
use super::output::{Output, note};
use super::{act, attest, authority, list, listen, run, runners, set, show, token};
use crate::{Control, Options, Posture};

const DONE: u8 = 0;
const AGENT_FAILED: u8 = 1;
const UNFIT: u8 = 1;
const WE_FAILED: u8 = 125;
const INTERRUPTED: u8 = 130;

/// How long the runners may take to hear that we go.
const GOODBYE_WAIT: Duration = Duration::from_secs(1);

/// Runs `oqtoctl` with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut output = Output::new();
    let code = dispatch(cli, &mut output).and_then(|code| output.flush().map(|()| code));
    match code {
        Ok(code) => ExitCode::from(code),
        // Whoever read our output has enough of it.
        Err(error) if error.is_closed_stdout() => ExitCode::SUCCESS,
        Err(error) => {
            note(&error.explain());
            ExitCode::from(WE_FAILED)
        }
    }
}

fn dispatch(cli: Cli, output: &mut Output) -> Result<u8, CliError> {
    match cli.verb {
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "oqtoctl", &mut text);
            output.bytes(&text).map(|()| DONE)
        }
        Verb::Man => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut text)
                .map_err(CliError::Stdout)?;
            output.bytes(&text).map(|()| DONE)
        }
        verb => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .map_err(CliError::Runtime)?;
            let code = runtime.block_on(talk(&cli.options, verb, output));
            // A read of standard input or a lock that waits must not keep us.
            runtime.shutdown_background();
            code
        }
    }
}

/// Everything that needs a runner.
async fn talk(options: &GlobalOptions, verb: Verb, output: &mut Output) -> Result<u8, CliError> {
    let mut own = Options::of_user()?;
    if let Some(posture) = Posture::read(&Options::posture_file()?)? {
        own = own.posture(posture);
    }
    if let Verb::Listen(args) = &verb {
        own = own.runner_life(args.runner_life.0);
    }
    let control = Control::open(own)?;
    let code = perform(&control, options, verb, output).await;
    // A runner that does not hear it finds out by itself.
    tokio::time::timeout(GOODBYE_WAIT, control.close()).await.ok();
    code
}

async fn perform(
    control: &Control,
    options: &GlobalOptions,
    verb: Verb,
    output: &mut Output,
) -> Result<u8, CliError> {
    let interrupts = &mut interrupts()?;
    match verb {
        Verb::Run(args) => run::run(control, options, args, interrupts, output)
            .await
            .map(ending_code),
        Verb::Attach(args) => run::attach(control, options, &args, interrupts, output)
            .await
            .map(ending_code),
        Verb::Prompt(args) => run::prompt(control, options, &args, interrupts, output)
            .await
            .map(ending_code),
        Verb::Exec(args) => exec(control, options, args, interrupts, output)
            .await
            .map(|ran| match ran {
                Ran::Exited(code) => code,
                Ran::Failed => WE_FAILED,
                Ran::Interrupted => INTERRUPTED,
            }),
        Verb::Listen(args) => listen::listen(control, options, args, interrupts, output)
            .await
            .map(|()| DONE),
        Verb::Attest(args) => {
            match or_interrupted(attest::attest(control, options, args, output), interrupts).await {
                Some(attested) => attested.map(|fitness| match fitness {
                    Fitness::Fit => DONE,
                    Fitness::Unfit => UNFIT,
                }),
                None => Ok(INTERRUPTED),
            }
        }
        verb => match or_interrupted(ask(control, options, verb, output), interrupts).await {
            Some(asked) => asked.map(|()| DONE),
            None => Ok(INTERRUPTED),
        },
    }
}

/// What has one answer; nothing of it is left undone when the wait for it is ended.
async fn ask(
    control: &Control,
    options: &GlobalOptions,
    verb: Verb,
    output: &mut Output,
) -> Result<(), CliError> {
    match verb {
        Verb::Steer(args) => act::steer(control, options, &args, output).await,
        Verb::FollowUp(args) => act::follow_up(control, options, &args, output).await,
        Verb::Answer(args) => act::answer(control, options, args, output).await,
        Verb::Abort(args) => act::abort(control, options, &args, output).await,
        Verb::Restart(args) => act::restart(control, options, args, output).await,
        Verb::Close(args) => act::close(control, options, &args, output).await,
        Verb::Sessions => list::sessions(control, options, output).await,
        Verb::Show(args) => show::show(control, options, &args, output).await,
        Verb::Messages(args) => list::messages(control, options, &args, output).await,
        Verb::Models(args) => set::models(control, options, &args, output).await,
        Verb::Set(args) => set::set(control, options, args, output).await,
        Verb::Send(args) => set::send(control, options, &args, output).await,
        Verb::Status => list::status(control, options, output).await,
        Verb::Runners { verb } => runners::runners(control, options, verb, output),
        Verb::Token { verb } => match verb {
            TokenVerb::Create(args) => token::create(control, options, args, output),
            TokenVerb::List => token::list(control, options, output),
            TokenVerb::Revoke(args) => token::revoke(control, options, &args, output),
        },
        Verb::Revoke(args) => authority::revoke(control, options, args, output).await,
        Verb::Authority { verb } => authority::rotate(control, options, verb, output).await,
        // These are followed, have a code of their own, or need no runner and were done already.
        Verb::Run(_)
        | Verb::Attach(_)
        | Verb::Prompt(_)
        | Verb::Exec(_)
        | Verb::Attest(_)
        | Verb::Listen(_)
        | Verb::Completions { .. }
        | Verb::Man => Ok(()),
    }
}

fn ending_code(ending: Ending) -> u8 {
    match ending {
        Ending::Done => DONE,
        Ending::Failed => AGENT_FAILED,
        Ending::Interrupted | Ending::Left => INTERRUPTED,
    }
}
