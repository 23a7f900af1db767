//! Processes killed and power cut in the middle of appending.
//!
//! The appending child is this very test binary, called again. For a power cut it appends to an ext4 file
//! system on a loop device, which is shut down by ioctl without writing its journal out: what was not synced
//! is gone, as after pulling the plug. That needs root, a real disk below, and a few tools; without them the
//! test says so, and fails where `QUORATE_REQUIRE_ALL` is set.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use tempfile::TempDir;

use crate::store::probe::{self, Load, Size};

const CHILD_DIR: &str = "QUORATE_STORE_CHILD";
const CHILD_IN_FLIGHT: &str = "QUORATE_STORE_IN_FLIGHT";
const CHILD_TEST: &str = "store::tests::crashes::appending_child";

/// `_IOR('X', 125, u32)`, value 2: shut down without flushing the journal.
const SHUTDOWN: &str = "import fcntl, os, struct, sys\n\
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";

fn count<N: FromStr>(variable: &str, default: N) -> N {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Not a test: the body of the child.
#[test]
#[ignore = "the child of other tests"]
fn appending_child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let load = Load {
        in_flight: count(CHILD_IN_FLIGHT, 16),
        ..Load::default()
    };
    let outcome = probe::append(Path::new(&dir), load, |index| {
        println!("ack {index}");
        Ok(())
    });
    println!("ended: {outcome:?}");
}

/// An appending process, and how far it said it got.
struct Appender {
    child: Child,
    acks: std::thread::JoinHandle<Option<u64>>,
    first_ack: std::sync::mpsc::Receiver<()>,
}

impl Appender {
    /// With every other cycle one entry at a time: the log writes a few entries in another way than many.
    fn start(data: &Path, cycle: u64) -> Self {
        let in_flight = if cycle.is_multiple_of(2) { 16 } else { 1 };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                CHILD_TEST,
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(CHILD_DIR, data)
            .env(CHILD_IN_FLIGHT, in_flight.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (first, first_ack) = std::sync::mpsc::channel();
        let acks = std::thread::spawn(move || {
            let mut last = None;
            for line in out.lines().map_while(Result::ok) {
                if let Some(index) = line.strip_prefix("ack ").and_then(|text| text.parse().ok()) {
                    last = Some(index);
                    first.send(()).ok();
                }
            }
            last
        });
        Self {
            child,
            acks,
            first_ack,
        }
    }

    /// Lets it append for a while after its first acknowledgement.
    fn run_for(&self, time: Duration) {
        self.first_ack
            .recv_timeout(Duration::from_secs(30))
            .expect("the child appends");
        std::thread::sleep(time);
    }

    /// Kills it. Returns the last index that it called durable.
    fn kill(mut self) -> Option<u64> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.acks.join().unwrap()
    }
}

fn random_while(most: u64) -> Duration {
    Duration::from_millis(rand::random_range(0..most))
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = None;
    for cycle in 0..count("QUORATE_KILLS", 10) {
        let appender = Appender::start(dir.path(), cycle);
        appender.run_for(random_while(200));
        acknowledged = appender.kill().max(acknowledged);
        let last = probe::check(dir.path(), Size::Mixed, acknowledged);
        assert!(last.is_ok(), "cycle {cycle}: {last:?}");
    }
    println!("last acknowledged: {acknowledged:?}");
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_is_cut() {
    let disk = match LoopDisk::create() {
        Ok(disk) => disk,
        Err(why) => {
            assert!(
                std::env::var_os("QUORATE_REQUIRE_ALL").is_none(),
                "power cuts: {why}"
            );
            // Past the runner, which shows what a passing test prints to nobody.
            writeln!(io::stderr(), "\nSKIPPED power cuts: {why}").unwrap();
            return;
        }
    };
    let cycles = count("QUORATE_POWER_CUTS", 20);
    let data = disk.mounted.join("data");
    let mut acknowledged = None;
    let mut total = 0;
    for cycle in 0..cycles {
        disk.mount();
        fs::create_dir_all(&data).unwrap();
        let appender = Appender::start(&data, cycle);
        appender.run_for(random_while(250));
        disk.cut_the_power();
        let last = appender.kill();
        total += last.map_or(0, |last| {
            last + 1 - acknowledged.map_or(0, |before| before + 1)
        });
        acknowledged = last.max(acknowledged);
        disk.unmount();
        disk.mount();
        let found = probe::check(&data, Size::Mixed, acknowledged);
        disk.unmount();
        assert!(
            found.is_ok(),
            "cycle {cycle}, {acknowledged:?} acknowledged: {found:?}"
        );
    }
    println!("{cycles} power cuts, {total} acknowledged entries, none lost");
    assert!(total > cycles, "INVALID: hardly anything was acknowledged");
}

/// An ext4 file system in a file.
struct LoopDisk {
    image: PathBuf,
    mounted: PathBuf,
    _dir: TempDir,
}

impl LoopDisk {
    fn create() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("mounting a loop device needs root".to_owned());
        }
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let disk = Self {
            image: dir.path().join("disk.img"),
            mounted: dir.path().join("mnt"),
            _dir: dir,
        };
        fs::create_dir(&disk.mounted).map_err(|error| error.to_string())?;
        let image = fs::File::create(&disk.image).map_err(|error| error.to_string())?;
        image.set_len(1 << 30).map_err(|error| error.to_string())?;
        tool("python3", &["--version"])?;
        tool(
            "mkfs.ext4",
            &["-q", "-F", &disk.image.display().to_string()],
        )?;
        disk.try_mount()?;
        disk.unmount();
        Ok(disk)
    }

    fn try_mount(&self) -> Result<(), String> {
        let text = |path: &Path| path.display().to_string();
        tool(
            "mount",
            &["-o", "loop", &text(&self.image), &text(&self.mounted)],
        )
    }

    fn mount(&self) {
        self.try_mount().unwrap();
    }

    fn unmount(&self) {
        tool("umount", &[self.mounted.to_str().unwrap()]).unwrap();
    }

    fn cut_the_power(&self) {
        tool("python3", &["-c", SHUTDOWN, self.mounted.to_str().unwrap()]).unwrap();
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // Where a failed assertion left it mounted.
        tool("umount", &[self.mounted.to_str().unwrap_or_default()]).ok();
    }
}

fn tool(program: &str, arguments: &[&str]) -> Result<(), String> {
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
