//! The `mailrace` program: passes its arguments to the command line room.

fn main() {}
