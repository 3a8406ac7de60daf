//! `oqtoctl`: drives oqto runners from a terminal. All of it is in [`oqto_control::cli`].
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    oqto_control::cli::main()
}
