//! Consensus and storage behind one handle, `Cluster`: openraft on sled.

mod consensus;
mod durable;
mod fatal;
mod member;
mod payload;
pub mod store;
mod sync;
