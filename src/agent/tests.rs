//! Tests of a whole agent.
