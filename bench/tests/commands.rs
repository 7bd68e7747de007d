//! The bench's program starts, and names what it measures.

use std::process::Command;

#[test]
fn each_comparison_has_its_command() {
    let output = Command::new(env!("CARGO_BIN_EXE_midmile-bench")).arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for comparison in ["relay", "trunk", "curve", "mux"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(comparison)), "{comparison} isn't in\n{help}");
    }
}
