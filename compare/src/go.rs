//! Go's arms are separate programs. They are built when they are first needed, if `go` is
//! installed.

use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::find_program;

/// The source of Go's echo server.
pub const ECHO_SOURCE: &str = include_str!("../go/echo.go");

/// Whether Go is installed.
pub fn is_here() -> bool {
    find_program("go").is_some()
}

/// Builds one of the programs in `compare/go`.
///
/// # Errors
///
/// When Go is not installed or the program does not compile.
pub fn build(name: &str) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("go").join(name).with_extension("go");
    let program = program(name)?;
    let status = Command::new("go")
        .arg("build")
        .arg("-o")
        .args([&program, &source])
        // It needs only the standard library, so nothing is downloaded.
        .envs([("GOPROXY", "off"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", "")])
        .status()
        .context("cannot run go")?;
    ensure!(status.success(), "go build {name} failed: {status}");
    Ok(program)
}

/// The path of a program that [`build`] has built: beside our own program.
fn program(name: &str) -> io::Result<PathBuf> {
    let ours = std::env::current_exe()?;
    let folder = ours.parent().ok_or(io::ErrorKind::NotFound)?;
    Ok(folder.join(format!("compare-go-{name}")))
}

/// Becomes one of Go's servers, with the id, the core and the parent of this process.
///
/// # Errors
///
/// When the program cannot be run. It does not return otherwise.
pub fn serve(name: &str, address: SocketAddr) -> io::Result<()> {
    Err(become_program(name, [&*address.to_string()]))
}

/// Becomes a program that [`build`] has built. Returns only when that fails.
pub fn become_program<'a>(name: &str, arguments: impl IntoIterator<Item = &'a str>) -> io::Error {
    match program(name) {
        Ok(program) => Command::new(program).args(arguments).exec(),
        Err(error) => error,
    }
}
