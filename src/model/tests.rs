//! Tests of the whole model.
