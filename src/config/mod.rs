//! The knobs: read from file, environment and flags, checked at the edge.
