//! With the feature `shuttle` or `loom`, the library's source takes its primitives from there.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for (feature, cfgs) in [("SHUTTLE", &["model"][..]), ("LOOM", &["model", "loom"])] {
        if std::env::var_os(format!("CARGO_FEATURE_{feature}")).is_some() {
            cfgs.iter().for_each(|cfg| println!("cargo::rustc-cfg=plainsong_{cfg}"));
        }
    }
}
