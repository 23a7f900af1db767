//! Whom a process is connected to, as `/proc` shows it: to be sure that a fault hits the right one.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};

/// `TCP_ESTABLISHED` in `/proc/PID/net/tcp`.
const ESTABLISHED: &str = "01";

/// The far ends of its open TCP connections over IPv4, each as `HOST:PORT`.
pub fn peers(pid: i32) -> BTreeSet<String> {
    let held = inodes(pid);
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let lines = table.lines().filter_map(parse);
    lines
        .filter(|(inode, _)| held.contains(inode))
        .map(|(_, peer)| peer.to_string())
        .collect()
}

/// The sockets among its descriptors.
fn inodes(pid: i32) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return BTreeSet::new();
    };
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect()
}

/// `sl local_address rem_address st … inode`; the address is the number that a little-endian machine has.
fn parse(line: &str) -> Option<(String, SocketAddrV4)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (remote, state, inode) = (fields.get(2)?, fields.get(3)?, fields.get(9)?);
    if *state != ESTABLISHED {
        return None;
    }
    let (host, port) = remote.split_once(':')?;
    let host = u32::from_str_radix(host, 16).ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let host = Ipv4Addr::from(host.to_ne_bytes());
    Some(((*inode).to_owned(), SocketAddrV4::new(host, port)))
}
