//! Tests of the whole model: golden scripts that a person can read, and properties over random
//! entries on three replicas.

mod access;
mod archive;
mod blobs;
mod budget;
mod by_hand;
mod endings;
mod exemplars;
mod exemplars_2;
mod formats;
mod golden;
mod joining;
mod kept;
mod policies;
mod preemption;
mod property;
mod requests;
mod resources;
mod rules;
mod speed;
mod versions;
mod world;
