//! The process's life on one screen.
fn main() {}
