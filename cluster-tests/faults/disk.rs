//! Disks that are full or can't be written, for one process.
//!
//! The process gets a mount namespace of its own, so nobody else sees the disk, and it is gone with the
//! process, whatever becomes of the harness. Only root may do that: [`SmallDisk::format`] and [`read_only`]
//! say why not, and the test is skipped.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::faults::process;
use crate::{Error, wait};

/// Written at a time until there is no room left.
const PIECE_BYTES: usize = 64 * 1024;
/// What is written in pieces; all before it is taken at once.
const LAST_BYTES: u64 = 1 << 20;
/// For a dead process's file system to be gone.
const FREE: Duration = Duration::from_secs(20);

/// An ext4 file system in a file.
#[derive(Debug)]
pub struct SmallDisk {
    image: PathBuf,
    directory: PathBuf,
}

impl SmallDisk {
    /// One of so many MiB that holds what is in `directory`, and is to take its place. `image` is its file.
    pub fn format(directory: &Path, image: &Path, mebibytes: u32) -> Result<SmallDisk, String> {
        probe()?;
        let (from, to) = (text(directory), text(image));
        let size = format!("{mebibytes}M");
        // Nothing is kept back for root, who runs the tests.
        tool("mkfs.ext4", &["-q", "-m", "0", "-d", &from, &to, &size])?;
        Ok(SmallDisk {
            image: image.to_owned(),
            directory: directory.to_owned(),
        })
    }

    /// A command line that runs `argv` with this disk in place of the directory.
    pub fn under(&self, argv: &[String]) -> Vec<String> {
        const SCRIPT: &str =
            "mount -o loop \"$1\" \"$2\" && rm -f \"$2/filler\" && shift 2 && exec \"$@\"";
        namespaced(SCRIPT, &[&text(&self.image), &text(&self.directory)], argv)
    }

    /// Leaves no room on the disk of the process `pid`, until the next start.
    pub fn fill(&self, pid: i32) -> Result<(), Error> {
        self.leave(pid, LAST_BYTES)?;
        let path = self.filler(pid);
        let filler = fs::OpenOptions::new().append(true).open(&path);
        let mut filler = filler.map_err(Error::file("opening", &path))?;
        let mut piece = vec![0; PIECE_BYTES];
        // The last pages count: the log may need no more than one.
        while !piece.is_empty() {
            match filler.write_all(&piece).and_then(|()| filler.sync_data()) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    piece.truncate(piece.len() / 2);
                }
                Err(error) => return Err(Error::file("writing", &path)(error)),
            }
        }
        Ok(())
    }
}

impl SmallDisk {
    /// Leaves about so many bytes on the disk of the process `pid`, or all that there are if these are fewer.
    pub fn leave(&self, pid: i32, bytes: u64) -> Result<(), Error> {
        self.make_room(pid)?;
        let path = self.filler(pid);
        let create = || {
            let filler = fs::File::create(&path)?;
            let disk = nix::sys::statvfs::fstatvfs(&filler)?;
            let free = disk.blocks_available().saturating_mul(disk.fragment_size());
            match i64::try_from(free.saturating_sub(bytes)) {
                Ok(taken) if taken > 0 => nix::fcntl::posix_fallocate(&filler, 0, taken)?,
                Ok(_) | Err(_) => {}
            }
            filler.sync_all()
        };
        create().map_err(Error::file("filling", &path))
    }

    /// Gives back what was taken.
    pub fn make_room(&self, pid: i32) -> Result<(), Error> {
        let path = self.filler(pid);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file("removing", &path)(error))
            }
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// Cuts its power under the process `pid`: nothing can be written from now on, and what was not flushed is lost.
    pub fn cut_power(&self, pid: i32) -> Result<(), Error> {
        let mounted = self.mounted(pid);
        crash::cut_power_below(&mounted).map_err(Error::Invalid)?;
        let probe = mounted.join("probe");
        match fs::write(&probe, "probe") {
            Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => Ok(()),
            other => Err(Error::Invalid(format!(
                "the power of {} was cut, and a write to it: {other:?}",
                self.image.display()
            ))),
        }
    }

    /// Mounts it for whoever looks into it while its own process does not run.
    pub fn open(&self) -> Result<Opened, Error> {
        // What holds it ends with its standard input, and so with the harness.
        let holder = ["sh", "-c", "echo mounted && exec cat"].map(str::to_owned);
        let argv = self.under(&holder);
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).stdin(Stdio::piped());
        let spawned = command.stdout(Stdio::piped()).spawn();
        let mut holder = spawned.map_err(Error::io("mounting a disk"))?;
        let mut said = [0; "mounted".len()];
        let read = holder
            .stdout
            .take()
            .map(|mut out| out.read_exact(&mut said));
        let pid = i32::try_from(holder.id()).unwrap_or_default();
        let opened = Opened {
            path: self.mounted(pid),
            holder,
        };
        match read {
            Some(Ok(())) => Ok(opened),
            _ => Err(Error::Invalid(format!(
                "{} can't be mounted",
                self.image.display()
            ))),
        }
    }

    /// Waits until nobody has it mounted any more: two file systems on one image would destroy it.
    pub async fn until_free(&self) -> Result<(), Error> {
        let what = format!("{} to be free", self.image.display());
        wait::until_now(&what, FREE, || self.is_free()).await
    }

    fn is_free(&self) -> Result<(), String> {
        let output = Command::new("losetup").arg("-j").arg(&self.image).output();
        let output = output.map_err(|error| format!("losetup: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        match (output.status.success(), said.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => Err(said),
            (false, _) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    fn filler(&self, pid: i32) -> PathBuf {
        self.mounted(pid).join("filler")
    }

    /// As the process `pid` has it mounted.
    pub fn mounted(&self, pid: i32) -> PathBuf {
        process::seen_by(pid, &self.directory)
    }
}

/// A disk that is mounted, for as long as this value lives.
#[derive(Debug)]
pub struct Opened {
    path: PathBuf,
    holder: Child,
}

impl Opened {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // It has nothing to do but to end.
        let _ended = self.holder.wait();
    }
}

/// Why nobody can have a [`SmallDisk`] here.
pub fn possible() -> Result<(), String> {
    probe()?;
    tool("mkfs.ext4", &["-V"])?;
    tool("losetup", &["--version"])?;
    // It cuts the power.
    tool("python3", &["--version"])
}

/// A command line that runs `argv` with `directory` read-only, for root too.
pub fn read_only(directory: &Path, argv: &[String]) -> Result<Vec<String>, String> {
    const SCRIPT: &str =
        "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
    probe()?;
    Ok(namespaced(SCRIPT, &[&text(directory)], argv))
}

/// A command line that runs `argv` without root's privilege to open whatever it likes.
pub fn without_override(argv: &[String]) -> Result<Vec<String>, String> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(argv.to_vec());
    }
    const FLAGS: &str = "--bounding-set=-dac_override,-dac_read_search";
    tool("setpriv", &[FLAGS, "true"])?;
    let words = ["setpriv", FLAGS].map(str::to_owned);
    Ok(words.into_iter().chain(argv.iter().cloned()).collect())
}

fn namespaced(script: &str, given: &[&str], argv: &[String]) -> Vec<String> {
    let words = ["unshare", "--mount", "sh", "-c", script, "sh"];
    let words = words.iter().chain(given).map(|word| (*word).to_owned());
    words.chain(argv.iter().cloned()).collect()
}

fn probe() -> Result<(), String> {
    tool("unshare", &["--mount", "true"])
}

fn tool(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", said.trim())),
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
