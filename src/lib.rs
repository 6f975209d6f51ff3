//! plainsong
