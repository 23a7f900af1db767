//! Whole members in one process: real sockets, real TLS, real disks.

mod archive;
mod blobs;
mod failover;
mod formats;
pub mod golden;
mod growth;
pub mod harness;
mod machine;
mod membership;
mod partition;
mod proxy;
mod replication;
mod throughput;
mod versions;
