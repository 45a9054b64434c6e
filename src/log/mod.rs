//! Placeholder until the room's first commit.
