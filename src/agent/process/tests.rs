//! Tests of the process executor.
