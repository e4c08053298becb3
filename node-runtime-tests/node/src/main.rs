//! Development node.
fn main() {}
