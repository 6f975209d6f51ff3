//! Commands, as they differ from those of std.

use plainsong_std::process::Command;

#[test]
fn a_command_prints_its_command_line() {
    let mut command = Command::new("ls");
    command.arg("a b").env("LANG", "C");
    let mut std = std::process::Command::new("ls");
    std.arg("a b").env("LANG", "C");
    assert_eq!(format!("{command:?}"), format!("{std:?}"));
    assert_eq!(format!("{command:#?}"), format!("{std:#?}"));
}
