//! Bindings in both directions.

mod output;
