//! Data directories that can't be read or written, are damaged, or lie on a disk that is full: one clear
//! error with the file and the next step, and never a panic.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cluster_tests::checkers::check_hashes;
use cluster_tests::cluster::{Completed, Member, finish};
use cluster_tests::faults;
use cluster_tests::faults::disk::{self, SmallDisk};
use cluster_tests::report::Progress;
use cluster_tests::traffic;
use tokio::process::Child;
use tokio::test;
use wire::v1;

use crate::site::{Site, assert_succeeded, with};

/// What became of a file's bytes.
type Damage = fn(&mut Vec<u8>);

/// Of a disk that holds a young log, with room for some growth.
const MEBIBYTES: u32 = 48;
/// Bytes of a task's command: as many as stand in the log.
const LARGE: usize = 3_500;

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_cannot_be_used_is_named_in_one_clear_error() {
    let site = Site::start("unusable", |options| options.agents(1)).await;
    let follower = site.a_follower().await;
    for (id, names) in [
        (
            follower,
            &[
                "node.json",
                "LOCK",
                "log",
                "log.mark",
                "snapshots",
                "identity/key.pem",
            ][..],
        ),
        (
            "a1",
            &[
                "agent.json",
                "LOCK",
                "journal",
                "logs",
                "scratch",
                "identity/cert.pem",
            ][..],
        ),
    ] {
        faults::kill(&site.cluster, id).await.unwrap();
        let member = site.cluster.member(id).unwrap();
        for name in names {
            // A file where a directory should be, a directory where a file should be: for root too.
            let copy = copied(&site, &member);
            let place = copy.join(name);
            assert!(place.exists(), "INVALID: {id} has no {name}");
            if place.is_dir() {
                fs::remove_dir_all(&place).unwrap();
                fs::write(&place, "not a directory").unwrap();
            } else {
                fs::remove_file(&place).unwrap();
                fs::create_dir(&place).unwrap();
            }
            let done = site.run_argv(&elsewhere(&member, &copy)).await;
            assert_one_error(&done, &site.progress, &place);
        }
        for name in ["", names[0], names[2]] {
            let copy = copied(&site, &member);
            let place = copy.join(name);
            fs::set_permissions(&place, fs::Permissions::from_mode(0o000)).unwrap();
            let argv = elsewhere(&member, &copy);
            match disk::without_override(&argv) {
                Ok(argv) => {
                    let done = site.run_argv(&argv).await;
                    assert_one_error(&done, &site.progress, &place);
                }
                Err(why) => site.progress.skip(&why),
            }
            fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let copy = copied(&site, &member);
        match disk::read_only(&copy, &elsewhere(&member, &copy)) {
            Ok(argv) => assert_one_error(&site.run_argv(&argv).await, &site.progress, &copy),
            Err(why) => site.progress.skip(&why),
        }
        // Its own was never touched.
        site.restart(id).await;
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_cut_or_changed_is_refused_with_its_file_and_the_next_step() {
    const MARK: &str = "this stands in the log as it is";
    let site = Site::start("damaged", |options| options.agents(1)).await;
    // Several times what the write-ahead files hold: they make good what the database lost of its end.
    let mut last = 0;
    for _ in 0..400 {
        let mut spec = traffic::process(["true".to_owned(), MARK.to_owned()]);
        // What stands in the log itself, however large.
        spec.labels = (0..60)
            .map(|n| v1::Label {
                key: format!("label{n}"),
                value: "x".repeat(250),
            })
            .collect();
        last = site.submit(spec).await;
    }
    assert_succeeded(&site.wait(last).await);
    site.converged().await;
    let id = site.a_follower().await;
    faults::kill(&site.cluster, id).await.unwrap();
    let member = site.cluster.member(id).unwrap();
    let number = fs::read_to_string(member.data_dir.join("log/CURRENT")).unwrap();
    let db = format!("log/{}/db", number.trim());

    let damages: [(&str, &str, Damage); 8] = [
        (&db, "cut to half", |bytes| bytes.truncate(bytes.len() / 2)),
        (&db, "cut to nothing", Vec::clear),
        (&db, "cut by some bytes in the middle", |bytes| {
            let middle = bytes.len() / 2;
            bytes.drain(middle..middle + 100);
        }),
        (&db, "one bit of each task flipped", |bytes| {
            let found = places_of(bytes, MARK.as_bytes());
            assert!(!found.is_empty(), "INVALID: the mark is not in the log");
            found.into_iter().for_each(|at| bytes[at] ^= 0b100);
        }),
        ("log.mark", "a bit flipped", |bytes| bytes[3] ^= 1),
        ("log/wal.0", "cut to nothing", Vec::clear),
        ("log/wal.1", "cut to a part of a sector", |bytes| {
            bytes.truncate(30)
        }),
        ("log/wal.1", "a bit of its first sector flipped", |bytes| {
            bytes[20] ^= 1
        }),
    ];
    for (name, what, damage) in damages {
        let copy = copied(&site, &member);
        let path = copy.join(name);
        let mut bytes = fs::read(&path).unwrap();
        // Behind what was written is room that holds nothing yet, and can't be damaged.
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        bytes.truncate(used);
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let done = site.run_argv(&elsewhere(&member, &copy)).await;
        site.progress.say(format!("{name} {what}"));
        // A gap is between the database and the files before it.
        assert_one_error(&done, &site.progress, &copy.join("log"));
        assert_eq!(done.code, Some(2), "{what}: {}", done.stderr);
        assert!(done.stderr.contains("under a new id"), "{}", done.stderr);
    }
    site.restart(id).await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_whose_disk_is_full_stops_and_the_others_go_on_until_there_is_room() {
    let site = Site::start("full-disk", |options| options.agents(1)).await;
    let id = site.a_follower().await;
    faults::kill(&site.cluster, id).await.unwrap();
    let member = site.cluster.member(id).unwrap();
    let image = site.cluster.scratch().join("disk.img");
    let disk = match SmallDisk::format(&member.data_dir, &image, MEBIBYTES) {
        Ok(disk) => disk,
        Err(why) => return site.progress.skip(&why),
    };
    let argv = disk.under(&member.argv);
    let cli = site.cluster.cli();
    let start = || cli.program(&argv[0], &argv[1..]).spawn().unwrap();

    let mut accepted = Vec::new();
    for office in ["follower", "leader"] {
        let child = start();
        site.cluster.until_whole().await.unwrap();
        if office == "leader" {
            let transfer = ["cluster", "transfer-leadership", id];
            cli.expect(&transfer).await.unwrap();
        }
        disk.fill(i32::try_from(child.id().unwrap()).unwrap())
            .unwrap();
        let done = until_it_ends(&site, child, &mut accepted).await;
        // Of the log or of the archive, whichever writes first.
        assert_one_error(&done, &site.progress, &member.data_dir);
        assert_eq!(done.code, Some(2), "{}", done.stderr);
        assert!(done.stderr.contains("make room"), "{}", done.stderr);

        for _ in 0..10 {
            accepted.push(site.submit(large()).await);
        }
        for task in &accepted {
            assert_succeeded(&site.wait(*task).await);
        }
        let status = site.cluster.status().await.unwrap();
        let shown = status.member(id).unwrap();
        assert_eq!(shown.applied, None, "{}", status.describe());
        let count = accepted.len();
        site.progress
            .say(format!("{id}, a {office}, stopped; {count} tasks are done"));
    }

    let _running = start();
    site.cluster.until_whole().await.unwrap();
    let status = site.converged().await;
    assert_eq!(check_hashes([&status]), []);
}

/// A task that makes the log grow: more would stand beside it.
fn large() -> v1::TaskSpec {
    traffic::process(["true".to_owned(), "x".repeat(LARGE)])
}

/// Submits until a controller has ended: however little its log needs at a time, it needs room in the end.
async fn until_it_ends(site: &Site, child: Child, accepted: &mut Vec<u64>) -> Completed {
    let mut ended = tokio::spawn(finish("controller run".to_owned(), child));
    loop {
        tokio::select! {
            done = &mut ended => return done.unwrap().unwrap(),
            id = site.submit(large()) => accepted.push(id),
        }
    }
}

/// A member's data directory once more, so that its own stays good.
pub fn copied(site: &Site, member: &Member) -> PathBuf {
    let copy = site
        .cluster
        .scratch()
        .join(format!("copy-of-{}", member.id));
    if copy.exists() {
        fs::remove_dir_all(&copy).unwrap();
    }
    copy_all(&member.data_dir, &copy);
    copy
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (
            entry.as_ref().unwrap().path(),
            to.join(entry.unwrap().file_name()),
        );
        if from.is_dir() {
            copy_all(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// The member's command line on another directory.
pub fn elsewhere(member: &Member, data_dir: &Path) -> Vec<String> {
    with(&member.argv, "--data-dir", &data_dir.to_string_lossy())
}

/// Where these bytes stand in those.
fn places_of(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(wanted.len()).enumerate();
    windows
        .filter(|(_, window)| *window == wanted)
        .map(|(at, _)| at)
        .collect()
}

/// It ended by itself, said why once and for all, and named a file in or at `place`.
fn assert_one_error(done: &Completed, progress: &Progress, place: &Path) {
    let all = format!("{}{}", done.stderr, done.text());
    let errors: Vec<&str> = all
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert!(!all.contains("panicked"), "{all}");
    assert!(matches!(done.code, Some(1 | 2)), "{:?}: {all}", done.code);
    let [error] = errors[..] else {
        panic!("not one error, for {}: {all}", place.display());
    };
    assert!(
        error.contains(&*place.to_string_lossy()),
        "{}: {all}",
        place.display()
    );
    assert!(error.contains("; "), "no next step: {error}");
    progress.say(error);
}
