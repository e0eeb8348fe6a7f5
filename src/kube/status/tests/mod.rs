//! Tests of the comparison and of the writer.

mod comparison;
mod writer;
