//! The memory limit of an attempt: a cgroup where the agent may make one, else `ulimit -v`.
//!
//! A cgroup counts all processes of the attempt together and takes all of them down at once; the
//! fallback limits the address space of each process by itself. Which one it is, is found out once
//! at the start and told in `Hello`. A cgroup is only made for an attempt with a limit: it costs
//! more than spawning `true`.
//!
//! The process must be inside before it runs its program, and nothing of ours may run between fork
//! and exec. So a line of shell does it: it puts itself into the cgroup (or sets the limit) and
//! becomes the program.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::Fence;
use procfs::process::Process;

use super::marks::Instance;
use super::signals::kill_exactly;
use super::table;

const MIB: u64 = 1024 * 1024;
/// The limit could not be set, and the program was not run: what shells and `env` use for it.
const SHIM_FAILED: i32 = 125;
/// A dead process leaves its cgroup a moment after it died.
const REMOVE_TRIES: u32 = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// How limits are enforced on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Limits {
    Cgroup2 { root: PathBuf },
    Cgroup1 { root: PathBuf },
    Rlimit,
}

impl Limits {
    /// The best that works here; cgroups that an earlier process of this agent left are ended.
    pub fn detect(instance: &Instance) -> Limits {
        let name = format!("quorate-{instance}");
        let found = cgroup2(&name)
            .map(|root| Limits::Cgroup2 { root })
            .or_else(|| cgroup1(&name).map(|root| Limits::Cgroup1 { root }))
            .unwrap_or(Limits::Rlimit);
        if let Limits::Cgroup2 { root } | Limits::Cgroup1 { root } = &found {
            end_leftovers(root);
        }
        found
    }

    pub fn name(&self) -> &'static str {
        match self {
            Limits::Cgroup2 { .. } => "cgroup2",
            Limits::Cgroup1 { .. } => "cgroup1",
            Limits::Rlimit => "rlimit",
        }
    }

    /// Leaves no cgroup behind; the next start makes it again.
    pub fn end(&self) {
        if let Limits::Cgroup2 { root } | Limits::Cgroup1 { root } = self
            && let Err(error) = fs::remove_dir(root)
        {
            tracing::debug!(%error, "a cgroup stays for the next start");
        }
    }

    /// Prepares a limit for one attempt.
    pub fn confine(&self, fence: Fence, memory_mib: u64) -> Result<Confinement, String> {
        let bytes = memory_mib.saturating_mul(MIB);
        let made = match self {
            Limits::Rlimit => {
                return Ok(Confinement {
                    memory_mib,
                    cgroup: None,
                });
            }
            Limits::Cgroup2 { root } => make(
                &root.join(fence.to_string()),
                &[
                    ("memory.max", bytes, Need::Must),
                    ("memory.swap.max", 0, Need::IfThere),
                ],
            ),
            Limits::Cgroup1 { root } => make(
                &root.join(fence.to_string()),
                &[
                    ("memory.limit_in_bytes", bytes, Need::Must),
                    ("memory.memsw.limit_in_bytes", bytes, Need::IfThere),
                ],
            ),
        };
        let cgroup = made.map_err(|error| format!("can't limit its memory: {error}"))?;
        Ok(Confinement {
            memory_mib,
            cgroup: Some(cgroup),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Must,
    /// Kernels without swap accounting lack the file.
    IfThere,
}

fn make(dir: &Path, settings: &[(&str, u64, Need)]) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    for (file, value, need) in settings {
        match fs::write(dir.join(file), value.to_string()) {
            Err(error) if *need == Need::Must => {
                // The directory stays behind only if even this fails; the next start removes it.
                fs::remove_dir(dir)?;
                return Err(error);
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(dir.to_owned())
}

/// A limit that waits for its process.
#[derive(Debug)]
pub(super) struct Confinement {
    memory_mib: u64,
    cgroup: Option<PathBuf>,
}

impl Confinement {
    /// The command that takes the limit on and then becomes `program` with `arguments`.
    pub fn wrap(&self, program: &Path, arguments: &[String]) -> (PathBuf, Vec<String>) {
        let (script, value) = match &self.cgroup {
            Some(dir) => (
                "echo $$ > \"$0\"",
                dir.join("cgroup.procs").display().to_string(),
            ),
            None => (
                "ulimit -v \"$0\"",
                self.memory_mib.saturating_mul(1024).to_string(),
            ),
        };
        let script = format!("{script} || exit {SHIM_FAILED}; exec \"$@\"");
        let mut all = vec![
            "-c".to_owned(),
            script,
            value,
            program.display().to_string(),
        ];
        all.extend_from_slice(arguments);
        (PathBuf::from("/bin/sh"), all)
    }

    /// Kills whatever is inside.
    pub fn kill(&self) {
        if let Some(dir) = &self.cgroup {
            kill_cgroup(dir);
        }
    }

    /// Kills whatever is inside, and removes it.
    pub async fn end(self) {
        let Some(dir) = self.cgroup else { return };
        for _ in 0..REMOVE_TRIES {
            kill_cgroup(&dir);
            match fs::remove_dir(&dir) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(_) => tokio::time::sleep(REMOVE_PAUSE).await,
            }
        }
        tracing::warn!(cgroup = %dir.display(), "could not remove a cgroup");
    }
}

fn kill_cgroup(dir: &Path) {
    if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let Ok(pids) = fs::read_to_string(dir.join("cgroup.procs")) else {
        return;
    };
    for pid in pids.lines().filter_map(|line| line.parse().ok()) {
        if let Some(process) = table::Process::read(pid) {
            kill_exactly(&process);
        }
    }
}

fn end_leftovers(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            kill_cgroup(&entry.path());
            if let Err(error) = fs::remove_dir(entry.path()) {
                tracing::debug!(%error, "a cgroup of an earlier process is still there");
            }
        }
    }
}

/// The most that this process may use of memory, in bytes, where its cgroup says so.
pub(crate) fn memory_ceiling() -> Option<u64> {
    let files = [
        (Hierarchy::Unified, "memory.max"),
        (Hierarchy::Memory, "memory.limit_in_bytes"),
    ];
    let told = files.iter().filter_map(|(hierarchy, file)| {
        let text = fs::read_to_string(own_cgroup(*hierarchy)?.join(file)).ok()?;
        text.trim().parse().ok()
    });
    told.min()
}

/// Where cgroups of `hierarchy` are mounted, and where in it this process is.
fn own_cgroup(hierarchy: Hierarchy) -> Option<PathBuf> {
    let own = Process::myself().ok()?;
    let mounts = own.mountinfo().ok()?;
    let mount = mounts.0.iter().find(|mount| match hierarchy {
        Hierarchy::Unified => mount.fs_type == "cgroup2",
        Hierarchy::Memory => {
            mount.fs_type == "cgroup" && mount.super_options.contains_key("memory")
        }
    })?;
    let groups = own.cgroups().ok()?;
    let place = groups.0.iter().find(|group| match hierarchy {
        Hierarchy::Unified => group.hierarchy == 0,
        Hierarchy::Memory => group.controllers.iter().any(|name| name == "memory"),
    })?;
    // Inside a container the mount may already be at our own place.
    let inner = place
        .pathname
        .strip_prefix(mount.root.trim_end_matches('/'))
        .unwrap_or("");
    let dir = mount.mount_point.join(inner.trim_start_matches('/'));
    dir.is_dir().then_some(dir)
}

#[derive(Debug, Clone, Copy)]
enum Hierarchy {
    Unified,
    Memory,
}

fn cgroup1(name: &str) -> Option<PathBuf> {
    let root = own_cgroup(Hierarchy::Memory)?.join(name);
    made_or_there(&root).then_some(root)
}

/// In the unified hierarchy a cgroup that hands a controller on may hold no process itself. So the
/// agent steps down into a child of the cgroup it was given, which works where that cgroup is its
/// alone (`Delegate=yes`); where it is not, everything is put back.
fn cgroup2(name: &str) -> Option<PathBuf> {
    let own = own_cgroup(Hierarchy::Unified)?;
    delegate(&own, name, std::process::id())
}

fn delegate(own: &Path, name: &str, pid: u32) -> Option<PathBuf> {
    let offered = fs::read_to_string(own.join("cgroup.controllers")).ok()?;
    if !offered
        .split_whitespace()
        .any(|controller| controller == "memory")
    {
        return None;
    }
    let (supervisor, root) = (own.join(format!("{name}-agent")), own.join(name));
    if !made_or_there(&supervisor) || !made_or_there(&root) {
        return None;
    }
    let enabled = fs::write(supervisor.join("cgroup.procs"), pid.to_string())
        .and_then(|()| fs::write(own.join("cgroup.subtree_control"), "+memory"))
        .and_then(|()| fs::write(root.join("cgroup.subtree_control"), "+memory"));
    if let Err(error) = enabled {
        tracing::debug!(%error, "cgroups are not delegated to the agent");
        let back = fs::write(own.join("cgroup.procs"), pid.to_string())
            .and_then(|()| fs::remove_dir(&root))
            .and_then(|()| fs::remove_dir(&supervisor));
        if let Err(error) = back {
            tracing::warn!(%error, "could not put the agent back into its cgroup");
        }
        return None;
    }
    Some(root)
}

fn made_or_there(dir: &Path) -> bool {
    match fs::create_dir(dir) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::AlreadyExists,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delegated_cgroup_is_split_into_the_agent_and_its_attempts() {
        let own = tempfile::tempdir().unwrap();
        assert_eq!(
            delegate(own.path(), "q", 7),
            None,
            "no controllers file: no cgroup at all"
        );
        fs::write(own.path().join("cgroup.controllers"), "cpu pids\n").unwrap();
        assert_eq!(
            delegate(own.path(), "q", 7),
            None,
            "memory is not ours to give"
        );
        fs::write(own.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        let root = delegate(own.path(), "q", 7).unwrap();
        let text = |path: &str| fs::read_to_string(own.path().join(path)).unwrap();
        assert_eq!(root, own.path().join("q"));
        assert_eq!(text("q-agent/cgroup.procs"), "7");
        assert_eq!(text("cgroup.subtree_control"), "+memory");
        assert_eq!(text("q/cgroup.subtree_control"), "+memory");
    }

    #[test]
    fn the_shell_takes_the_limit_on_before_it_becomes_the_program() {
        let confinement = Confinement {
            memory_mib: 64,
            cgroup: None,
        };
        let (shell, arguments) = confinement.wrap(Path::new("/bin/x"), &["a b".into()]);
        assert_eq!(shell, Path::new("/bin/sh"));
        assert_eq!(arguments[2..], ["65536", "/bin/x", "a b"]);
        assert!(arguments[1].ends_with("exec \"$@\""));
    }
}
