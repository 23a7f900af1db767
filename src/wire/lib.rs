//! The wire: everything that leaves or enters a process passes through here.
//!
//! `v1` is generated from `proto/quorate/v1` and is the contract with other programs. `transport`
//! carries it: TLS accepted and dialled with named limits. `status` is the one table between our
//! errors and gRPC statuses. `client` is what a program uses that talks to a cluster: it knows several
//! controllers, follows the leader and repeats what is safe to repeat.
//!
//! What it leaves out: who may call what (that is the gateways' work) and where certificates come from
//! (`security` makes the TLS configurations that are passed in here).

pub mod client;
pub mod convert;
pub mod status;
pub mod transport;

#[cfg(test)]
mod test_kit;

/// Messages, clients and servers of `quorate.v1`, as generated.
#[expect(
    clippy::allow_attributes,
    clippy::large_enum_variant,
    clippy::too_many_lines,
    reason = "generated code keeps to its generator's style"
)]
pub mod v1 {
    tonic::include_proto!("quorate.v1");
}
