//! Policies that somebody else could have written, at each door, for root and for a user.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use oqto_tests::not_run;

use crate::bad_input::{DOORS, MINE, Who, open, refused};
use crate::bed::{Bed, end, is_root};

/// How a policy comes to be one that others can change, and what is said of it.
type Spoil = (&'static str, fn(&Bed), &'static [&'static str]);

const SPOILS: [Spoil; 6] = [
    (
        "a file that its group may write",
        |bed| mode(&bed.path("policies/mine.toml"), 0o664),
        &["policies/mine.toml has mode 0664", "chmod go-w"],
    ),
    (
        "a file that everybody may write",
        |bed| mode(&bed.path("policies/mine.toml"), 0o646),
        &["policies/mine.toml has mode 0646", "chmod go-w"],
    ),
    (
        "a directory that everybody may write",
        |bed| mode(&bed.path("policies"), 0o777),
        &["policies has mode 0777", "chmod go-w"],
    ),
    (
        "a sticky directory, in which everybody may put a policy",
        |bed| mode(&bed.path("policies"), 0o1777),
        &["policies has mode 1777"],
    ),
    (
        "a directory above that everybody may write",
        |bed| mode(&bed.path(""), 0o777),
        &["has mode 0777", "chmod go-w"],
    ),
    (
        "a link through a directory that everybody may write",
        |bed| {
            let open = bed.path("open");
            fs::create_dir(&open).unwrap();
            fs::rename(bed.path("policies/mine.toml"), open.join("mine.toml")).unwrap();
            symlink("../open/mine.toml", bed.path("policies/mine.toml")).unwrap();
            mode(&open, 0o777);
        },
        &["open has mode 0777", "chmod go-w"],
    ),
];

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_policy_that_others_could_write_or_replace_is_not_believed() {
    for who in Who::all() {
        for (what, spoil, words) in SPOILS {
            let bed = Bed::new();
            let policies = bed.policy("mine", MINE);
            spoil(&bed);
            for door in DOORS {
                let what = format!("{what} ({who:?}, {door})");
                let ended = end(&mut open(&bed, *who, door, &policies));
                refused(&bed, &what, &ended, &["the policies cannot be believed"]);
                refused(&bed, &what, &ended, words);
            }
        }
    }
}

#[test]
fn a_policy_of_somebody_else_is_not_believed_and_ones_own_is() {
    if !is_root() {
        return not_run(
            "a_policy_of_somebody_else_is_not_believed_and_ones_own_is",
            "only root can give a file away",
        );
    }
    for who in Who::all() {
        for name in ["policies", "policies/mine.toml"] {
            let bed = Bed::new();
            let policies = bed.policy("mine", MINE);
            for (owner, believed) in [(who.user() + 1, false), (who.user(), true)] {
                chown(bed.path(name), Some(owner), None).unwrap();
                for door in DOORS {
                    let ended = end(&mut open(&bed, *who, door, &policies));
                    let what = format!("{name} of {owner} ({who:?}, {door})");
                    if believed {
                        assert_eq!(ended.code, 0, "{what}: {}{}", ended.out, ended.err);
                        continue;
                    }
                    let words = [
                        format!("{name} belongs to user {owner}"),
                        format!("chown {}", who.user()),
                    ];
                    refused(&bed, &what, &ended, &words.each_ref().map(String::as_str));
                }
            }
        }
    }
}
