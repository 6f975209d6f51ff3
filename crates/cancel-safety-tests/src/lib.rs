//! Nothing: this crate is its test, which needs crates that no other test does.
