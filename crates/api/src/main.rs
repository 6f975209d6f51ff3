//! Prints the public items of plainsong, one a line.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use public_api::Builder;

fn main() -> anyhow::Result<()> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let target = env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), Into::into);
    let done = Command::new("cargo")
        .args(["rustdoc", "--quiet", "--package", "plainsong", "--lib", "--all-features"])
        .args(["--", "-Zunstable-options", "--output-format", "json", "--cap-lints", "allow"])
        .current_dir(root)
        // Its JSON is an unstable feature.
        .env("RUSTC_BOOTSTRAP", "1")
        .status()
        .context("cannot run cargo")?;
    ensure!(done.success(), "rustdoc failed");
    let api = Builder::from_rustdoc_json(target.join("doc/plainsong.json"))
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .context(
            "cannot read rustdoc's JSON. If the compiler is another than Rust 1.95, change the \
             version of `public-api` in crates/api/Cargo.toml",
        )?;
    print!("{api}");
    Ok(())
}
