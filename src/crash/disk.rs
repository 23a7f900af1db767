//! A file system in a file, on a loop device, whose power can be cut: ext4, or xfs where `QUORATE_POWER_CUTS_ON` says so.
//!
//! The cut is an ioctl, made by a few lines of Python since it is `unsafe` in Rust. It leaves the file system
//! as the last flush left it; mounting it again replays the journal, as after pulling the plug. Unlike a
//! plug it lets processes go on, and an fsync that is under way may even return as if it had been done: what is
//! said after the cut is not to be believed.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use tempfile::TempDir;

/// Says a word when it is ready, and waits for one. `_IOR('X', 125, u32)`, value 2, to ext4 as to xfs: shut down without
/// flushing the journal.
const SHUTDOWN: &str = "import fcntl, os, struct, sys\n\
    fd = os.open(sys.argv[1], os.O_RDONLY)\n\
    os.write(1, b'!')\n\
    if os.read(0, 1): fcntl.ioctl(fd, 0x8004587D, struct.pack('I', 2))";

/// Sparse: it takes what is written.
const BYTES: u64 = 1 << 30;

/// Cuts the power of the file system below `mounted`, now. The reason of a failure is for a person.
pub fn cut_power_below(mounted: &Path) -> Result<(), String> {
    let cut = Switch::at(mounted).and_then(Switch::cut);
    cut.map_err(|error| format!("the power of {} was not cut: {error}", mounted.display()))
}

/// The command that makes an empty file system in a file.
fn making() -> Result<[&'static str; 3], String> {
    match std::env::var("QUORATE_POWER_CUTS_ON").as_deref() {
        Ok("ext4") | Err(_) => Ok(["mkfs.ext4", "-q", "-F"]),
        Ok("xfs") => Ok(["mkfs.xfs", "-q", "-f"]),
        Ok(other) => Err(format!(
            "QUORATE_POWER_CUTS_ON is {other}: power is cut of ext4 or xfs"
        )),
    }
}

/// A file system of its own, on a loop device.
pub struct Disk {
    dir: TempDir,
    image: PathBuf,
    mounted: PathBuf,
}

impl Disk {
    /// Makes one, not mounted yet; or says what is missing for that.
    pub fn create() -> Result<Self, String> {
        let text = |error: io::Error| error.to_string();
        let dir = tempfile::Builder::new().prefix("quorate-disk-").tempdir();
        let dir = dir.map_err(text)?;
        let disk = Self {
            image: dir.path().join("disk.img"),
            mounted: dir.path().join("mnt"),
            dir,
        };
        fs::create_dir(&disk.mounted).map_err(text)?;
        let image = fs::File::create(&disk.image).map_err(text)?;
        image.set_len(BYTES).map_err(text)?;
        tool("python3", &["--version"])?;
        let [program, quietly, at_any_rate] = making()?;
        tool(program, &[quietly, at_any_rate, &shown(&disk.image)])?;
        disk.try_mount()?;
        disk.unmount();
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mounted
    }

    pub fn mount(&self) {
        self.try_mount().expect("the disk can be mounted again");
    }

    pub fn unmount(&self) {
        tool("umount", &[&shown(&self.mounted)]).expect("nobody uses the disk any more");
    }

    /// Makes ready for a cut, which then takes no time.
    pub fn switch(&self) -> Switch {
        Switch::at(&self.mounted).expect("python3 was there before, and it can open the disk")
    }

    fn try_mount(&self) -> Result<(), String> {
        let (image, mounted) = (shown(&self.image), shown(&self.mounted));
        tool("mount", &["-o", "loop", &image, &mounted])
    }
}

impl Drop for Disk {
    /// After a failure the image stays: a cut that does harm may be one in a hundred.
    fn drop(&mut self) {
        if thread::panicking() {
            self.dir.disable_cleanup(true);
            writeln!(io::stderr(), "kept the disk: {}", self.image.display()).ok();
        }
    }
}

/// A process that holds the disk open, and cuts its power or goes away.
pub struct Switch {
    python: Child,
}

impl Switch {
    /// Returns once it holds the disk open.
    fn at(mounted: &Path) -> io::Result<Self> {
        let python = Command::new("python3")
            .args(["-c", SHUTDOWN, &shown(mounted)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut switch = Self { python };
        let out = switch.python.stdout.as_mut();
        out.expect("it was asked for").read_exact(&mut [0])?;
        Ok(switch)
    }

    fn cut(mut self) -> io::Result<()> {
        let mut word = self.python.stdin.take().expect("it was asked for");
        word.write_all(b"!")?;
        let ended = self.python.wait()?;
        match ended.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("python3 ended with {ended}"))),
        }
    }

    pub fn cut_the_power(self) {
        self.cut().expect("INVALID: the power was not cut");
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.python.kill().ok();
        self.python.wait().ok();
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Runs a program to its end; what it said if it failed.
pub fn tool(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
