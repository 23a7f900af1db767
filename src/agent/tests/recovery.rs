//! What an agent that died left behind is killed and reported, and nobody else is harmed.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};

use model::{End, Fence};
use security::{Ca, Identity, Role};
use tokio::sync::mpsc::unbounded_channel;
use tokio_util::sync::CancellationToken;

use super::controller::{CLUSTER, Controller, LONG};
use super::{Home, fence, sh};
use crate::Error;
use crate::data_dir::DataDir;
use crate::journal::{Journal, ProcessMark};
use crate::process::{Marks, ROSTER, TableRow};

fn sleeper(value: Option<String>) -> Child {
    let mut command = Command::new("sleep");
    command.arg("1000").process_group(0);
    if let Some(value) = value {
        command.env("QUORATE_ATTEMPT", value);
    }
    // Listed, or the sweepers of other tests in this program would take it for an orphan.
    let listing = ROSTER.spawning();
    let child = command.spawn().unwrap();
    listing.add(i32::try_from(child.id()).unwrap());
    child
}

fn process(child: &Child) -> ProcessMark {
    let pid = i32::try_from(child.id()).unwrap();
    let started = TableRow::read(pid).unwrap().started;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    ProcessMark {
        pid,
        started,
        boot: boot.trim().to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_are_killed_and_reported_and_a_foreign_process_is_not_harmed() {
    let home = Home::new();
    let mut controller = Controller::listen(&home.ca, "c1").await;
    let instance = {
        let dir = DataDir::open(&home.path("data"), "a1", CLUSTER).unwrap();
        dir.instance().clone()
    };
    let (told, _durable) = unbounded_channel();
    let (journal, _, thread) = Journal::open(&home.path("data/journal"), told).unwrap();
    let [one, two, three] = [1, 2, 3].map(|n| Fence::from(fence(n)));
    // 1 is in the journal with its number; 2 only began; 3's number belongs to somebody else now.
    let mut main = sleeper(None);
    let mut strayed = sleeper(Some(Marks::new(instance).of(two)));
    let mut foreign = sleeper(Some("0123.t3@1.103".into()));
    journal.begun(one, 1);
    journal.running(one, process(&main));
    journal.begun(two, 1);
    journal.begun(three, 1);
    journal.running(
        three,
        ProcessMark {
            started: 1,
            ..process(&foreign)
        },
    );
    drop(journal);
    thread.join().unwrap();
    // What it wrote before the agent died.
    let log = home.path("data/logs").join(one.to_string());
    fs::create_dir_all(&log).unwrap();
    fs::write(log.join(format!("stdout.{:020}", 0)), "half").unwrap();
    fs::create_dir_all(home.path("data/scratch").join(one.to_string()).join("deep")).unwrap();

    let mut agent = home.start(&controller);
    let (mut session, known) = controller.leading(1).await;
    assert_eq!(known, [1, 2, 3].map(fence));
    assert_eq!(main.wait().unwrap().signal(), Some(9));
    assert_eq!(strayed.wait().unwrap().signal(), Some(9));
    assert!(foreign.try_wait().unwrap().is_none(), "it is not ours");
    foreign.kill().unwrap();
    foreign.wait().unwrap();
    for held in [one, two, three] {
        let verdict = session.verdict().await;
        assert_eq!(verdict.fence, held);
        assert!(
            matches!(verdict.outcome.end, End::Interrupted { .. }),
            "{verdict:?}"
        );
        let output: &[u8] = if held == one { b"half" } else { b"" };
        assert_eq!(verdict.outcome.stdout, output);
    }
    for n in 1..=3 {
        session.settle(fence(n));
        session.assign(fence(n), &sh("true"));
    }
    session.assign(fence(4), &sh("sleep 0.5"));
    assert_eq!(
        session.started().await,
        fence(4),
        "what was interrupted is not started again"
    );
    session.verdict().await;
    session.settle(fence(4));
    agent.shutdown.cancel();
    agent.stopped().await;
    assert!(!home.path("data/scratch").join(one.to_string()).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_directory_of_another_cluster_is_refused() {
    let home = Home::new();
    let mut controller = Controller::listen(&home.ca, "c1").await;
    let mut agent = home.start(&controller);
    controller.welcomed().await;
    agent.shutdown.cancel();
    agent.stopped().await;
    let other = Ca::create("q2").unwrap();
    let identity = Identity::new("q2", Role::Agent, "a1").unwrap();
    let issued = other.issue(&identity, &[], LONG).unwrap();
    issued.save(&home.path("identity"), other.pem()).unwrap();
    let outcome = crate::run(home.config(&controller), CancellationToken::new()).await;
    assert!(matches!(outcome, Err(Error::Foreign { .. })), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_run_started_is_killed_even_where_its_journal_is_lost() {
    let home = Home::new();
    let mut controller = Controller::listen(&home.ca, "c1").await;
    let instance = {
        let dir = DataDir::open(&home.path("data"), "a1", CLUSTER).unwrap();
        dir.instance().clone()
    };
    // Once the directory is closed: a child has its lock, too, until shortly after `spawn` has returned.
    let mut left = sleeper(Some(Marks::new(instance).of(fence(1).into())));
    let mut agent = home.start(&controller);
    let (_session, known) = controller.leading(1).await;
    assert_eq!(known, [], "nothing is remembered");
    assert_eq!(left.wait().unwrap().signal(), Some(9));
    agent.shutdown.cancel();
    agent.stopped().await;
}
