//! Model checks of plainsong. See README.md.
