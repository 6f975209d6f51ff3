//! plainsong measured beside other ways to write the same server.
//!
//! Start reading at [`servers`], the same program in every style. Then read [`contest`], which
//! measures them under load.

pub mod all;
pub mod code;
pub mod contest;
pub mod go;
pub mod load;
pub mod machine;
pub mod micro;
pub mod process;
pub mod report;
pub mod saved;
pub mod servers;
pub mod stats;
pub mod terminal;
