//! The program of the editions, with plainsong-std named by its crate root.

extern crate plainsong_std as std;

#[path = "program.rs"]
mod program;
