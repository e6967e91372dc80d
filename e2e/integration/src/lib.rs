//! Tests of the binaries from outside, in `tests`.
