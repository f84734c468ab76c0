//! The measure.
fn main() {}
