//! These packages have only tests.
