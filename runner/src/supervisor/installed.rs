//! Where a harness's program is on this host, which edition it is, and what of the host it needs to run.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use oqto_protocol::hello::HarnessInfo;

use super::package::{Package, node_version};
use crate::harness::{Definition, Edition, Harness, reaches};

/// How much of a script is read to find its interpreter, bytes: the kernel itself reads no more.
const SHEBANG_LEN_MAX: u64 = 256;

/// A program that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Installed {
    /// What to execute, its links resolved: the program, or the interpreter of its script.
    pub program: PathBuf,
    /// What stands before the harness's own arguments: the script, when there is one.
    pub leading: Vec<PathBuf>,
    /// What it has to read besides the system.
    pub read: Vec<PathBuf>,
    /// Where the programs that it calls by name are.
    pub path: Vec<PathBuf>,
    /// Which edition it is.
    pub edition: Edition,
}

/// A program that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotInstalled {
    /// The configuration names a file that is none.
    #[error("{path} is no program (runner.toml: harness.{harness}.program)")]
    Configured {
        /// Which harness.
        harness: String,
        /// What the configuration says.
        path: PathBuf,
    },
    /// Nothing of that name in `PATH`.
    #[error(
        "there is no program {program} in the runner's PATH; {}, or name it in runner.toml: harness.{harness}.program",
        to_get(install.as_deref())
    )]
    Missing {
        /// Which harness.
        harness: String,
        /// Its program's name.
        program: String,
        /// How to get it.
        install: Option<String>,
    },
    /// Its script's interpreter is not there.
    #[error("{script} needs {interpreter}, which is not in the runner's PATH")]
    NoInterpreter {
        /// The script.
        script: PathBuf,
        /// What it names.
        interpreter: String,
    },
}

fn to_get(install: Option<&str>) -> String {
    install.map_or_else(
        || "install it".to_owned(),
        |command| format!("to get it: {command}"),
    )
}

/// What a peer is told of a harness; `exe` is the runner's own program.
pub(super) fn info(harness: &Harness, exe: &Path) -> HarnessInfo {
    let definition = harness.definition();
    let found = definition.program.as_ref().map(|_| find(definition));
    let (program, edition, problem) = match found {
        None => (Some(exe.to_owned()), Edition::default(), None),
        Some(Ok(found)) => {
            let program = found.leading.into_iter().next().unwrap_or(found.program);
            (Some(program), found.edition, None)
        }
        Some(Err(error)) => (None, Edition::default(), Some(error.to_string())),
    };
    let version = edition.version.as_deref();
    let untested = version.and_then(|version| edition.untested(harness.name(), version));
    let warnings: Vec<String> = untested.into_iter().chain(edition.warning).collect();
    HarnessInfo {
        name: harness.name().to_owned(),
        program: program.map(|path| path.display().to_string()),
        problem,
        capabilities: harness.capabilities().to_vec(),
        version: edition.version,
        tested: definition.tested.as_ref().map(ToString::to_string),
        warning: (!warnings.is_empty()).then(|| warnings.join("; ")),
    }
}

/// Finds the program of a harness: where the configuration says, else by its name in `PATH`.
///
/// # Errors
/// When it, or what its script needs, is not there.
pub(super) fn find(definition: &Definition) -> Result<Installed, NotInstalled> {
    let harness = &definition.name;
    let name = definition.program.as_deref().unwrap_or_default();
    let configured = definition.program_path.as_deref();
    let named = match configured {
        Some(path) if is_program(path) => path.to_owned(),
        Some(path) => {
            return Err(NotInstalled::Configured {
                harness: harness.clone(),
                path: path.to_owned(),
            });
        }
        None => in_path(name).ok_or_else(|| NotInstalled::Missing {
            harness: harness.clone(),
            program: name.to_owned(),
            install: definition.install.clone(),
        })?,
    };
    let real = named.canonicalize().unwrap_or_else(|_| named.clone());
    let package = Package::of(&real);
    let edition = |warning| Edition {
        version: package.as_ref().and_then(Package::version).map(str::to_owned),
        tested: definition.tested.clone(),
        warning,
    };
    let Some(interpreter) = interpreter(&real) else {
        return Ok(Installed {
            edition: edition(None),
            read: vec![installation(&real)],
            path: Vec::new(),
            program: real,
            leading: Vec::new(),
        });
    };
    // Package managers put an interpreter of the right version beside the program.
    let beside = named
        .parent()
        .map(|dir| dir.join(&interpreter))
        .filter(|path| is_program(path));
    let found = beside
        .or_else(|| in_path(&interpreter))
        .ok_or_else(|| NotInstalled::NoInterpreter {
            script: real.clone(),
            interpreter: interpreter.clone(),
        })?;
    let program = found.canonicalize().unwrap_or(found);
    let needs = package.as_ref().and_then(|package| package.needs("node"));
    let warning = needs
        .filter(|_| interpreter == "node")
        .and_then(|range| too_old(&real, &program, range));
    Ok(Installed {
        edition: edition(warning),
        read: vec![installation(&real), installation(&program)],
        path: program.parent().map(Path::to_owned).into_iter().collect(),
        program,
        leading: vec![real],
    })
}

/// What there is to say of a node that is older than its script wants. It may do nevertheless: nothing is refused.
fn too_old(script: &Path, node: &Path, range: &str) -> Option<String> {
    let version = node_version(node)?;
    (reaches(&version, range) == Some(false)).then(|| {
        let (script, node) = (script.display(), node.display());
        format!("{script} needs node {range}, and {node} is {version}: it may not start")
    })
}

/// The directory that must be seen for `program` to run: the whole tree of packages that it was installed with,
/// else the one that it stands in.
fn installation(program: &Path) -> PathBuf {
    let packages = program
        .ancestors()
        .filter(|dir| dir.ends_with("node_modules"))
        .last();
    packages.or(program.parent()).unwrap_or(program).to_owned()
}

/// The program that a script asks `env` for. A script that names its interpreter's path needs no help.
fn interpreter(script: &Path) -> Option<String> {
    let mut start = Vec::new();
    File::open(script)
        .ok()?
        .take(SHEBANG_LEN_MAX)
        .read_to_end(&mut start)
        .ok()?;
    let line = start.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
    let program = words.next()?;
    if !program.ends_with("/env") {
        return None;
    }
    words.find(|word| *word != "-S").map(str::to_owned)
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::harness::Harnesses;

    fn pi(program: &str, path: Option<&Path>) -> Definition {
        Definition {
            program: Some(program.to_owned()),
            program_path: path.map(Path::to_owned),
            ..Harness::pi().definition().clone()
        }
    }

    fn program(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_script_brings_the_interpreter_that_stands_beside_it_and_its_packages() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        program(&root.join("x/node_modules/@a/pi/cli.js"), "#!/usr/bin/env node\n");
        program(&root.join("x/node_modules/node/bin/node"), "\u{7f}ELF");
        fs::create_dir_all(root.join("x/node_modules/.bin")).unwrap();
        let named = root.join("x/node_modules/.bin/pi");
        std::os::unix::fs::symlink("../@a/pi/cli.js", &named).unwrap();
        std::os::unix::fs::symlink("../node/bin/node", root.join("x/node_modules/.bin/node")).unwrap();
        let found = find(&pi("pi", Some(&named))).unwrap();
        assert_eq!(found.program, root.join("x/node_modules/node/bin/node"));
        assert_eq!(found.leading, [root.join("x/node_modules/@a/pi/cli.js")]);
        assert_eq!(found.read[0], root.join("x/node_modules"));
        assert_eq!(found.edition.version, None);
    }

    #[test]
    fn a_version_and_a_node_that_is_too_old_are_read_from_their_packages() {
        let dir = tempfile::tempdir().unwrap();
        let modules = dir.path().canonicalize().unwrap().join("node_modules");
        let script = modules.join("pi/cli.js");
        program(&script, "#!/usr/bin/env node\n");
        program(&modules.join("node/bin/node"), "\u{7f}ELF");
        std::os::unix::fs::symlink("../node/bin/node", modules.join("pi/node")).unwrap();
        let package = |of: &str, text: &str| fs::write(modules.join(of).join("package.json"), text).unwrap();
        package(
            "pi",
            r#"{"version": "0.99.0", "bin": {"pi": "cli.js"}, "engines": {"node": ">=22.19"}}"#,
        );
        package("node", r#"{"version": "20.1.0", "bin": {"node": "bin/node"}}"#);
        let harness = Harness::pi();
        let tables = format!("[pi]\nprogram = {script:?}\n");
        let harnesses = Harnesses::new(toml::from_str(&tables).unwrap()).unwrap();
        let told = info(&harnesses.find("pi").unwrap(), Path::new("/runner"));
        assert_eq!(told.version.as_deref(), Some("0.99.0"));
        assert_eq!(
            told.tested,
            harness.definition().tested.as_ref().map(ToString::to_string)
        );
        let warning = told.warning.unwrap();
        assert!(warning.contains("pi 0.99.0 is none of the versions"), "{warning}");
        assert!(warning.contains("needs node >=22.19, and"), "{warning}");
        assert!(warning.contains("is 20.1.0: it may not start"), "{warning}");
        package("node", r#"{"version": "22.19.0", "bin": {"node": "bin/node"}}"#);
        package("pi", r#"{"version": "0.87.1", "bin": {"pi": "cli.js"}}"#);
        let told = info(&harnesses.find("pi").unwrap(), Path::new("/runner"));
        assert_eq!((told.warning, told.problem), (None, None));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = find(&pi("no-such-program-here", None)).unwrap_err();
        assert!(error.to_string().contains("no-such-program-here"));
        assert!(error.to_string().contains("to get it: npm install -g"), "{error}");
        let error = find(&pi("pi", Some(Path::new("/etc/passwd")))).unwrap_err();
        assert!(matches!(error, NotInstalled::Configured { .. }));
    }
}
