//! The process executor with real processes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::{Epoch, Fence, Generation, Millis, Namespace, TaskId, TaskSpec};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::{Instance, Marks, Processes, Settings, Table};
use crate::executor::{Attempt, Executor, Exit, Hands, Urgency};
use crate::journal::ProcessMark;
use crate::lease::Until;
use crate::output::{AttemptLog, Captured, Stream, Writer, hang, recover};

/// Longer than anything here takes on a busy machine; only a failing test waits for it.
pub(super) const LONG: Duration = Duration::from_secs(60);

struct Bench {
    dir: tempfile::TempDir,
    writer: Writer,
    processes: Processes,
    marks: Marks,
    lease: Until,
}

struct Run {
    stop: watch::Sender<Urgency>,
    started: mpsc::UnboundedReceiver<ProcessMark>,
    log: Arc<AttemptLog>,
    exit: tokio::task::JoinHandle<Exit>,
    fence: Fence,
}

impl Bench {
    fn new(grace: Duration) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::new(Instance::new());
        let lease = Until::default();
        lease.set(Millis(u64::MAX));
        let settings = Settings {
            marks: marks.clone(),
            lease: lease.clone(),
            scratch: dir.path().join("scratch"),
            path: "/usr/bin:/bin".into(),
            gpus: vec!["GPU-a".into(), "GPU-b".into(), "GPU-c".into()],
            grace,
        };
        std::fs::create_dir(&settings.scratch).unwrap();
        Bench {
            processes: Processes::new(settings).unwrap(),
            dir,
            writer: Writer::start().unwrap(),
            marks,
            lease,
        }
    }

    fn start(&self, spec: TaskSpec) -> Run {
        self.start_told(spec, Urgency::None)
    }

    /// Already told how urgently it has to end.
    fn start_told(&self, spec: TaskSpec, urgency: Urgency) -> Run {
        self.start_logged(spec, urgency, self.log())
    }

    /// The log of an attempt.
    fn log(&self) -> Arc<AttemptLog> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.path().join(format!("log{n}"));
        Arc::new(AttemptLog::new(dir, 64 << 20, self.writer.clone()))
    }

    fn start_logged(&self, spec: TaskSpec, urgency: Urgency, log: Arc<AttemptLog>) -> Run {
        self.start_on(&[], spec, urgency, log)
    }

    /// With these GPUs of the machine.
    fn start_on(
        &self,
        gpus: &[u16],
        spec: TaskSpec,
        urgency: Urgency,
        log: Arc<AttemptLog>,
    ) -> Run {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let fence = Fence {
            task: TaskId(n),
            generation: Generation(1),
            epoch: Epoch(n + 100),
        };
        let (stop, stopped) = watch::channel(urgency);
        let (told, started) = mpsc::unbounded_channel();
        let hands = Hands {
            output: Arc::clone(&log),
            started: Box::new(move |mark| told.send(mark.unwrap()).unwrap()),
            stop: stopped,
        };
        let attempt = Attempt {
            files: None,
            fence,
            number: 3,
            gpus: gpus.into(),
            spec: Arc::new(spec),
        };
        let exit = tokio::spawn(self.processes.run(attempt, hands));
        Run {
            stop,
            started,
            log,
            exit,
            fence,
        }
    }

    async fn run(&self, spec: TaskSpec) -> (Exit, Captured) {
        let mut run = self.start(spec);
        let exit = run.end().await;
        (exit, run.log.end())
    }

    /// Processes anywhere on the machine that carry the mark of this attempt.
    fn alive(&self, fence: Fence) -> Vec<i32> {
        let wanted = self.marks.of(fence);
        let table = Table::read();
        let rows = table.rows().iter().filter(|row| !row.zombie);
        rows.filter(|row| row.mark().as_deref() == Some(&wanted))
            .map(|row| row.pid)
            .collect()
    }

    async fn gone(&self, fence: Fence) {
        eventually(|| self.alive(fence).is_empty()).await;
    }
}

impl Run {
    async fn end(&mut self) -> Exit {
        timeout(LONG, &mut self.exit)
            .await
            .expect("the attempt should have ended")
            .unwrap()
    }

    /// Until so much was written to stdout.
    async fn written(&self, bytes: u64) {
        let mut progress = self.log.follow();
        let enough = progress.wait_for(|progress| progress.written[0] >= bytes);
        timeout(LONG, enough).await.expect("no output").unwrap();
    }
}

pub(super) async fn eventually(mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LONG, "it never came true");
        sleep(Duration::from_millis(20)).await;
    }
}

fn command(words: &[&str]) -> TaskSpec {
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    TaskSpec::process(Namespace::new("default").unwrap(), words)
}

fn sh(script: &str) -> TaskSpec {
    command(&["sh", "-c", script])
}

fn bench() -> Bench {
    Bench::new(Duration::from_secs(30))
}

fn text(captured: &Captured) -> String {
    String::from_utf8_lossy(&captured.tails[0]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_signals_are_told_as_they_are() {
    let bench = bench();
    for (script, exit) in [
        ("exit 0", Exit::Exited(0)),
        ("exit 7", Exit::Exited(7)),
        ("kill -TERM $$", Exit::Signalled(15)),
        ("kill -KILL $$", Exit::Signalled(9)),
        ("ulimit -c unlimited; kill -SEGV $$", Exit::Signalled(11)),
    ] {
        assert_eq!(bench.run(sh(script)).await.0, exit, "{script}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_gets_a_clean_environment_and_a_scratch_directory_that_goes_away() {
    let bench = bench();
    let mut spec = command(&["env"]);
    spec.env = BTreeMap::from([
        ("COLOUR".into(), "green".into()),
        ("TASK_ID".into(), "forged".into()),
        ("LANG".into(), "de".into()),
    ]);
    let mut run = bench.start(spec);
    let fence = run.fence;
    assert_eq!(run.end().await, Exit::Exited(0));
    let shown = text(&run.log.end());
    let mut lines: Vec<&str> = shown.lines().collect();
    lines.sort_unstable();
    let home = lines.iter().find_map(|line| line.strip_prefix("HOME="));
    let scratch = PathBuf::from(home.unwrap());
    assert_eq!(scratch.parent(), Some(&*bench.dir.path().join("scratch")));
    let wanted = [
        "COLOUR=green".to_owned(),
        // The machine has GPUs, and it asked for none.
        "CUDA_VISIBLE_DEVICES=".to_owned(),
        format!("HOME={}", scratch.display()),
        "LANG=de".into(),
        "PATH=/usr/bin:/bin".into(),
        format!("QUORATE_ATTEMPT={}", bench.marks.of(fence)),
        "TASK_ATTEMPT=3".into(),
        format!("TASK_EPOCH={}", fence.epoch.0),
        format!("TASK_ID={}", fence.task),
    ];
    assert_eq!(lines, wanted);
    let (exit, captured) = bench
        .run(sh("pwd; mkdir -p a/b; echo x > a/b/c; cat; ls"))
        .await;
    assert_eq!(exit, Exit::Exited(0));
    assert!(text(&captured).starts_with(&bench.dir.path().display().to_string()));
    assert!(
        text(&captured).ends_with("\na\n"),
        "stdin is empty, and the files are there"
    );
    let left = || std::fs::read_dir(bench.dir.path().join("scratch")).unwrap();
    eventually(|| left().count() == 1).await;
    let aside = left().next().unwrap().unwrap().path();
    assert_eq!(
        aside, scratch,
        "the empty one was put aside, the other removed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_started_is_said_in_plain_words() {
    let bench = bench();
    std::fs::write(bench.dir.path().join("data"), "x").unwrap();
    let script = bench.dir.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let data = bench.dir.path().join("data").display().to_string();
    let mut nowhere = command(&["true"]);
    nowhere.cwd = "/no/such/place".into();
    for (spec, words) in [
        (
            command(&["no-such-program"]),
            "no such program `no-such-program` in PATH",
        ),
        (command(&[&data]), "permission denied"),
        (command(&["/tmp"]), "is a directory"),
        (
            command(&[&script.display().to_string()]),
            "needs an interpreter",
        ),
        (nowhere, "no such directory `/no/such/place`"),
    ] {
        let (exit, _) = bench.run(spec).await;
        let Exit::NotStarted(reason) = exit else {
            panic!("{exit:?}")
        };
        assert!(reason.contains(words), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_the_process_its_children_and_those_that_left_its_group() {
    let bench = Bench::new(Duration::from_millis(300));
    // One child in the group, one in a session of its own, and nobody heeds the polite signal.
    let mut spec = sh(
        "trap '' TERM; sleep 1000 & setsid sh -c \"trap '' TERM; sleep 1000 & sleep 1001\" & \
         echo on; while true; do sleep 1000; done",
    );
    spec.timeout = Some(Millis(1_000));
    let mut run = bench.start(spec);
    run.written(3).await;
    eventually(|| bench.alive(run.fence).len() >= 5).await;
    assert_eq!(run.end().await, Exit::TimedOut);
    bench.gone(run.fence).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polite_end_gives_a_process_the_time_to_tidy_up() {
    let bench = bench();
    let mut run = bench.start(sh(
        "trap 'echo tidy; exit 3' TERM; echo on; while :; do sleep 0.05; done",
    ));
    run.written(3).await;
    run.stop.send_modify(|urgency| *urgency = Urgency::Gently);
    assert_eq!(run.end().await, Exit::Stopped);
    assert_eq!(text(&run.log.end()), "on\ntidy\n");
    bench.gone(run.fence).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_hears_the_polite_signal_too() {
    let bench = bench();
    let mut run = bench.start(sh("echo on; kill -STOP $$"));
    run.written(3).await;
    run.stop.send_modify(|urgency| *urgency = Urgency::Gently);
    assert_eq!(run.end().await, Exit::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_lease_everything_dies_at_once_however_deaf() {
    let bench = bench();
    let mut run = bench.start(sh(
        "trap '' TERM INT; setsid sh -c 'trap \"\" TERM; sleep 1000' & echo on; \
         while true; do sleep 1000; done",
    ));
    run.written(3).await;
    eventually(|| bench.alive(run.fence).len() >= 3).await;
    let begun = Instant::now();
    run.stop.send_modify(|urgency| *urgency = Urgency::AtOnce);
    assert_eq!(run.end().await, Exit::Stopped);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    bench.gone(run.fence).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_nobody_holds_any_more_is_killed() {
    let bench = bench();
    let mut run = bench.start(sh("trap '' TERM; echo on; while true; do sleep 1000; done"));
    run.written(3).await;
    drop(std::mem::replace(
        &mut run.stop,
        watch::channel(Urgency::None).0,
    ));
    assert_eq!(run.end().await, Exit::Stopped);
    bench.gone(run.fence).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_leaves_running_is_ended_with_it() {
    let bench = bench();
    // In its group; in a session of its own; and one that also wiped its environment.
    let mut run = bench.start(sh(
        "sleep 1000 & setsid sleep 1001 & env -i /usr/bin/setsid /bin/sleep 1002.$$ & \
         echo $$; while ! pgrep -f 'sleep 1002.'$$'$' >/dev/null; do :; done; exit 0",
    ));
    assert_eq!(run.end().await, Exit::Exited(0));
    let shell = text(&run.log.end()).trim().to_owned();
    bench.gone(run.fence).await;
    let unmarked = format!("1002.{shell}");
    let is_there = || {
        Table::read().rows().iter().any(|row| {
            let line = std::fs::read(format!("/proc/{}/cmdline", row.pid)).unwrap_or_default();
            line.split(|byte| *byte == 0)
                .any(|word| word == unmarked.as_bytes())
        })
    };
    // Others run in this test program, too, and it could be theirs.
    eventually(|| !is_there()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_left_the_group_is_dead_before_the_end_is_told() {
    let bench = bench();
    let seen = bench.dir.path().join("seen");
    // Several that left it, some of them below another; the shell waits until they are up.
    let mut run = bench.start(sh(&format!(
        "setsid sh -c 'setsid sleep 1000 & sleep 1000 & echo up > done; wait' & \
             while [ ! -s done ]; do sleep 0.01; done; echo on; \
             while [ ! -e '{0}' ]; do sleep 0.01; done",
        seen.display()
    )));
    run.written(3).await;
    assert!(bench.alive(run.fence).len() >= 4);
    std::fs::write(&seen, "").unwrap();
    assert_eq!(run.end().await, Exit::Exited(0));
    assert_eq!(bench.alive(run.fence), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_starts_when_the_lease_is_over_or_it_was_told_to_end() {
    let bench = bench();
    bench.lease.set(Millis(1));
    assert_eq!(bench.run(sh("echo on")).await.0, Exit::Prevented);
    bench.lease.set(Millis(u64::MAX));
    let mut run = bench.start_told(sh("echo on"), Urgency::Gently);
    assert_eq!(run.end().await, Exit::Prevented);
    assert_eq!(run.log.end().totals, [0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_of_binary_output_are_counted_and_its_end_is_kept() {
    let bench = bench();
    let (exit, captured) = bench
        .run(sh(
            "head -c 10485760 /dev/urandom | tee /dev/stderr | tail -c 65536",
        ))
        .await;
    assert_eq!(exit, Exit::Exited(0));
    assert_eq!(captured.totals, [65_536, 10_485_760]);
    assert_eq!(captured.tails[0], captured.tails[1]);
}

/// As many attempts as there are threads: none may be left that acts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_under_output_holds_up_neither_a_timeout_nor_the_end_of_the_lease() {
    let bench = bench();
    let logs = [bench.log(), bench.log()];
    logs.iter().for_each(|log| hang(log, Stream::Stdout));
    let mut timed = command(&["yes"]);
    timed.timeout = Some(Millis(500));
    let mut timed = bench.start_logged(timed, Urgency::None, Arc::clone(&logs[0]));
    let leased = Urgency::None;
    let mut leased = bench.start_logged(command(&["yes"]), leased, Arc::clone(&logs[1]));
    eventually(|| logs.iter().all(|log| log.is_behind())).await;
    bench.gone(timed.fence).await;
    assert_ne!(bench.alive(leased.fence), [0; 0]);
    leased
        .stop
        .send_modify(|urgency| *urgency = Urgency::AtOnce);
    bench.gone(leased.fence).await;

    let disks = logs.each_ref().map(|log| recover(log, Stream::Stdout));
    assert_eq!(timed.end().await, Exit::TimedOut);
    assert_eq!(leased.end().await, Exit::Stopped);
    for log in &logs {
        let written = log.end().totals[0];
        assert!(written < 1 << 20, "{written}: the process had to wait");
    }
    // So that the writer closes the files.
    drop((timed, leased, logs, bench));
    disks
        .into_iter()
        .for_each(|disk| assert!(disk.join().unwrap() > 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_sees_the_gpus_that_it_was_assigned_and_no_other() {
    let bench = bench();
    let run = async |gpus: &[u16], spec: TaskSpec| {
        let mut run = bench.start_on(gpus, spec, Urgency::None, bench.log());
        let exit = run.end().await;
        (exit, text(&run.log.end()))
    };
    let asks = || sh("echo \"gpus ${CUDA_VISIBLE_DEVICES-unset}\"");
    let says = |told: &str| (Exit::Exited(0), format!("gpus {told}\n"));
    assert_eq!(run(&[2, 0], asks()).await, says("GPU-c,GPU-a"));
    assert_eq!(run(&[], asks()).await, says(""), "nobody else's");
    // Who asked for none may say so of itself; who has some can't have others.
    let mut own = asks();
    let variable = ("CUDA_VISIBLE_DEVICES".to_owned(), "1".to_owned());
    own.env.extend([variable]);
    assert_eq!(run(&[], own.clone()).await, says("1"));
    assert_eq!(run(&[1], own).await, says("GPU-b"));
    let order = sh("echo \"$CUDA_DEVICE_ORDER\"");
    assert_eq!(run(&[1], order).await.1, "PCI_BUS_ID\n");
    let (exit, _) = run(&[3], asks()).await;
    assert!(
        matches!(&exit, Exit::Unable(why) if why.contains("GPU 3")),
        "{exit:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_limit_holds() {
    let bench = bench();
    let hungry = "import sys; b = bytearray(400 * 1024 * 1024); b[::4096] = b'x' * len(b[::4096]); \
                  print(len(b))";
    let mut spec = command(&["python3", "-c", hungry]);
    assert_eq!(bench.run(spec.clone()).await.0, Exit::Exited(0));
    spec.memory_mib = Some(100);
    let (exit, captured) = bench.run(spec).await;
    assert_ne!(exit, Exit::Exited(0));
    assert_eq!(captured.totals[0], 0);
    let mut modest = sh("echo \"$0 $1\"; exit 5");
    modest.command.extend(["a b".into(), "*".into()]);
    modest.memory_mib = Some(100);
    let (exit, captured) = bench.run(modest).await;
    assert_eq!(
        (exit, text(&captured).as_str()),
        (Exit::Exited(5), "a b *\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_that_runs_is_told_exactly() {
    let bench = bench();
    let mut run = bench.start(sh("echo $$; sleep 1000"));
    let mark = timeout(LONG, run.started.recv()).await.unwrap().unwrap();
    assert!(super::is_running(&mark));
    let reused = ProcessMark {
        started: mark.started + 1,
        ..mark.clone()
    };
    assert!(
        !super::is_running(&reused),
        "another process with its number"
    );
    let rebooted = ProcessMark {
        boot: "another".into(),
        ..mark.clone()
    };
    assert!(
        !super::is_running(&rebooted),
        "a number of before the machine was booted"
    );
    run.stop.send_modify(|urgency| *urgency = Urgency::AtOnce);
    run.end().await;
    assert!(!super::is_running(&mark));
}

/// Prints how many a second; run it in release with `--nocapture --ignored`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn how_many_true_a_second() {
    const COUNT: usize = 5_000;
    const AT_A_TIME: usize = 16;
    let bench = bench();
    let begun = Instant::now();
    let mut running = std::collections::VecDeque::new();
    for _ in 0..COUNT {
        if running.len() == AT_A_TIME {
            let mut first: Run = running.pop_front().unwrap();
            assert_eq!(first.end().await, Exit::Exited(0));
        }
        running.push_back(bench.start(command(&["true"])));
    }
    for mut run in running {
        assert_eq!(run.end().await, Exit::Exited(0));
    }
    let rate = COUNT as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} processes a second");
}
