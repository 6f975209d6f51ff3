//! With the feature `shuttle`, the library's source takes its primitives from there.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_SHUTTLE").is_some() {
        println!("cargo::rustc-cfg=plainsong_model");
    }
}
