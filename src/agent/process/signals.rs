//! The only place that sends signals. A number is checked before each: 0, 1, -1 and the agent's own
//! group would reach processes that are not ours.

use rustix::process::{
    Pid, PidfdFlags, Signal, getpgrp, getpid, kill_process_group, pidfd_open, pidfd_send_signal,
};

use super::table::Process;

/// A process group that may be signalled: led by a child of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group(Pid);

impl Group {
    pub fn new(leader: i32) -> Option<Group> {
        let pid = number(leader)?;
        (pid != getpgrp() && pid != getpid()).then_some(Group(pid))
    }

    /// Asks all of it to end. A stopped process only hears it once it goes on.
    pub fn terminate(self) {
        self.send(Signal::TERM);
        self.send(Signal::CONT);
    }

    pub fn kill(self) {
        self.send(Signal::KILL);
    }

    fn send(self, signal: Signal) {
        match kill_process_group(self.0, signal) {
            // Nobody is left in it, which is what was wanted.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::warn!(group = ?self.0, ?signal, %error, "could not signal"),
        }
    }
}

/// Kills the group that `leader` leads; nothing where that is no group of ours.
pub(crate) fn kill_group(leader: i32) {
    if let Some(group) = Group::new(leader) {
        group.kill();
    }
}

/// Kills this process and no other one that has its number by now.
pub(crate) fn kill_exactly(process: &Process) {
    let Some(pid) = number(process.pid).filter(|pid| *pid != getpid()) else {
        return;
    };
    // The descriptor is for whoever has the number now; the check afterwards says whether it is he.
    let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    if Process::read(process.pid).is_some_and(|now| now.started == process.started) {
        match pidfd_send_signal(descriptor, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::warn!(pid = process.pid, %error, "could not kill"),
        }
    }
}

/// Neither everybody (0 and below) nor init.
fn number(pid: i32) -> Option<Pid> {
    if pid > 1 { Pid::from_raw(pid) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_everybody_and_ourselves_are_no_group_of_ours() {
        let own = getpgrp().as_raw_nonzero().get();
        for leader in [-5, -1, 0, 1, own, getpid().as_raw_nonzero().get()] {
            assert_eq!(Group::new(leader), None, "{leader}");
        }
    }
}
