//! Whole controllers in this process: real certificates, sockets, log and disk; the agent is a
//! fake that speaks the session's protocol. What needs several processes, or faults, is in
//! `cluster-tests`.

mod agent;
mod archive;
mod cluster;
mod fixture;
mod health;
mod https;
mod joining;
mod logs;
mod orders;
mod submit_all;
mod tasks;
mod vigil;
