//! What the package of a program says of it: its version, and what it needs. Nothing is run to know it.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::sys::read_bounded;

/// The file in which a package of npm says what it is.
const FILE: &str = "package.json";

/// The longest such file, bytes: they are a few kilobytes.
const FILE_LEN_MAX: u64 = 1024 * 1024;

/// How far above its program a package begins, directories: `dist/bundle/cli.js` is two.
const DEPTH_MAX: usize = 8;

/// The longest version, bytes; what is longer is none.
const VERSION_LEN_MAX: usize = 64;

/// A package of npm, as far as it is asked.
#[derive(Debug, Deserialize)]
pub(super) struct Package {
    version: Option<String>,
    /// The path of its program, or a path for each name.
    #[serde(default)]
    bin: Value,
    #[serde(default)]
    engines: Value,
}

impl Package {
    /// The package that `program`, its links resolved, is a program of.
    pub(super) fn of(program: &Path) -> Option<Self> {
        let above = program.ancestors().skip(1).take(DEPTH_MAX);
        above
            .take_while(|dir| !dir.ends_with("node_modules"))
            .find_map(|dir| Self::read(dir).filter(|package| package.has(dir, program)))
    }

    fn read(dir: &Path) -> Option<Self> {
        let bytes = read_bounded(&dir.join(FILE), FILE_LEN_MAX).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    fn has(&self, dir: &Path, program: &Path) -> bool {
        let is_it = |path: &Value| {
            let path = path.as_str().map(|path| dir.join(path).canonicalize());
            path.is_some_and(|path| path.is_ok_and(|path| path == program))
        };
        match &self.bin {
            Value::Object(paths) => paths.values().any(is_it),
            path => is_it(path),
        }
    }

    /// Its version.
    pub(super) fn version(&self) -> Option<&str> {
        let is_one = |version: &&str| version.len() <= VERSION_LEN_MAX && !version.contains(char::is_control);
        self.version.as_deref().filter(is_one)
    }

    /// Which versions of `engine` it needs, as npm writes ranges.
    pub(super) fn needs(&self, engine: &str) -> Option<&str> {
        self.engines.get(engine)?.as_str()
    }
}

/// The version of the interpreter `node`, its links resolved: as its package says, else as the header does that is
/// installed with it.
pub(super) fn node_version(node: &Path) -> Option<String> {
    if let Some(package) = Package::of(node) {
        return package.version().map(str::to_owned);
    }
    let header = node.parent()?.parent()?.join("include/node/node_version.h");
    let bytes = read_bounded(&header, FILE_LEN_MAX).ok()??;
    let text = String::from_utf8(bytes).ok()?;
    let number = |name: &str| {
        let mut defined = text.lines().filter_map(|line| line.strip_prefix("#define "));
        let found = defined.find_map(|line| line.strip_prefix(name)?.trim().parse::<u32>().ok());
        found.map(|number| number.to_string())
    };
    let parts = [
        "NODE_MAJOR_VERSION ",
        "NODE_MINOR_VERSION ",
        "NODE_PATCH_VERSION ",
    ]
    .map(number);
    let parts: Option<Vec<String>> = parts.into_iter().collect();
    Some(parts?.join("."))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_program_is_of_the_nearest_package_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("node_modules/@a/b");
        let program = root.join("dist/cli.js");
        file(&program, "");
        file(&root.join("dist/package.json"), r#"{"type": "module"}"#);
        let package = root.join("package.json");
        for bin in [
            r#""./dist/cli.js""#,
            r#"{"other": "x.js", "b": "dist/../dist/cli.js"}"#,
        ] {
            file(
                &package,
                &format!(r#"{{"version": "1.2.3", "bin": {bin}, "engines": {{"node": ">=22"}}}}"#),
            );
            let found = Package::of(&program).expect("a package");
            assert_eq!(
                (found.version(), found.needs("node")),
                (Some("1.2.3"), Some(">=22"))
            );
        }
        for other in [
            r#"{"version": "1.2.3", "bin": "other.js"}"#,
            r#"{"version": "1.2.3"}"#,
            "rubbish",
        ] {
            file(&package, other);
            assert!(Package::of(&program).is_none(), "{other}");
        }
        // What lies above the packages is another's.
        file(
            &root
                .parent()
                .unwrap()
                .parent()
                .unwrap()
                .parent()
                .unwrap()
                .join(FILE),
            r#"{"version": "9", "bin": "node_modules/@a/b/dist/cli.js"}"#,
        );
        assert!(Package::of(&program).is_none());
    }

    #[test]
    fn the_version_of_a_node_is_that_of_its_package_or_of_its_header() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let node = root.join("bin/node");
        file(&node, "");
        assert_eq!(node_version(&node), None);
        file(
            &root.join("include/node/node_version.h"),
            "#define NODE_MAJOR_VERSION 20\n#define NODE_MINOR_VERSION 19\n#define NODE_PATCH_VERSION 2\n",
        );
        assert_eq!(node_version(&node).as_deref(), Some("20.19.2"));
        file(
            &root.join(FILE),
            r#"{"version": "24.1.0", "bin": {"node": "bin/node"}}"#,
        );
        assert_eq!(node_version(&node).as_deref(), Some("24.1.0"));
    }
}
