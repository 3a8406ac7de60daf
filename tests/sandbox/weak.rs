//! Layers left out: whatever is missing, the rest starts and says what is missing.

use std::process::Command;

use serde_json::Value;

use crate::attempt::LAYERS;
use crate::bed::{Bed, end, runner, weak};

#[test]
fn every_combination_of_layers_starts_and_says_which_are_left_out() {
    let bed = Bed::new();
    for chosen in 0..1_u32 << LAYERS.len() {
        let out: Vec<&str> = (0..LAYERS.len())
            .filter(|at| chosen & 1 << at != 0)
            .map(|at| LAYERS[at])
            .collect();
        let mut command = Command::new(weak());
        for layer in &out {
            command.args(["--without", layer]);
        }
        command.args(["--policy", "workspace", "--json", "--cwd"]);
        let ended = end(command.arg(bed.workspace()).args(["--", "echo", "here"]));
        assert_eq!(
            (ended.code, ended.out.as_str()),
            (0, "here\n"),
            "{out:?}: {}",
            ended.err
        );
        let report: Value = serde_json::from_str(&ended.err).unwrap();
        let off: Vec<&str> = report
            .as_array()
            .unwrap()
            .iter()
            .filter(|layer| layer["state"] == "off")
            .map(|layer| layer["layer"].as_str().unwrap())
            .collect();
        assert_eq!(off, out);
    }
}

#[test]
fn the_program_that_ships_knows_no_way_to_leave_a_layer_out() {
    let mut command = Command::new(runner());
    let ended = end(command.args(["sandbox", "run", "--without", "landlock", "--", "true"]));
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("--without"), "{}", ended.err);
}
