//! Blobs between members: a majority has them, whoever is away, and a learner has them before it votes.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use bytes::Bytes;
use crash::{Disk, tool};
use model::{
    Attachment, BlobRef, Command, ControllerId, Held, Namespace, Op, Principal, Submit, TaskSpec,
    Timestamp,
};
use tokio::time::{Instant, sleep, timeout};

use super::harness::{Lab, PATIENCE, Running};
use crate::space::Space;
use crate::{HoldError, Progress};

async fn until_whole(member: &Running, blob: BlobRef) {
    let begun = Instant::now();
    while member.cluster.blob_progress(blob).await.unwrap() != Progress::Whole {
        assert!(begun.elapsed() < PATIENCE, "{} never has it", member.id);
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_is_on_the_disks_of_a_majority_and_names_who_votes() {
    let mut lab = Lab::new("held");
    let mut members = lab.cluster(3).await;
    let leader = members[0].cluster.clone();
    let bytes = Bytes::from_static(b"an output");
    let small = BlobRef::of(&bytes);
    let held = leader
        .hold(vec![(small, Some(bytes.clone()))])
        .await
        .unwrap();
    let membership = leader.effective_membership().log_id().unwrap().index;
    assert_eq!(held.0, membership);

    // One that is not at hand comes from whoever has it, and goes to the others from there.
    let large = Bytes::from(vec![7; 3 << 20]);
    let named = BlobRef::of(&large);
    let other = &members[1].cluster;
    other.append_blob(named, 0, large).await.unwrap();
    assert_eq!(leader.hold(vec![(named, None)]).await, Ok(held));
    for member in &members {
        until_whole(member, small).await;
        until_whole(member, named).await;
    }
    let unknown = BlobRef::of(b"nobody has it");
    let nowhere = leader.hold(vec![(named, None), (unknown, None)]).await;
    assert_eq!(nowhere, Err(HoldError::Nowhere(unknown)));

    // Another voter: the same blob is held by others than before.
    let fourth = lab.start(4).await;
    let addresses = lab.addresses(4);
    leader.add_member(ControllerId(4), addresses).await.unwrap();
    members.push(fourth);
    let now = leader.hold(vec![(small, None)]).await.unwrap();
    assert!(now > held, "{now:?} after {held:?}");

    // Two of four are no majority; where one of them comes back, they are.
    for _ in 0..2 {
        members.pop().unwrap().cluster.shutdown().await;
    }
    let fresh = Bytes::from_static(b"another output");
    let blob = BlobRef::of(&fresh);
    let refused = leader.hold(vec![(blob, Some(fresh.clone()))]).await;
    assert!(matches!(refused, Err(HoldError::Other(_))), "{refused:?}");
    members.push(lab.start(3).await);
    let begun = Instant::now();
    while leader.hold(vec![(blob, Some(fresh.clone()))]).await != Ok(now) {
        assert!(begun.elapsed() < PATIENCE, "never held again");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A submit of a task with this file.
fn submit_with(file: BlobRef, held: Held) -> Op {
    let namespace = Namespace::new("default").expect("it is a name");
    let mut spec = TaskSpec::process(namespace, vec!["cat".to_owned()]);
    spec.blobs.attachments.push(Attachment {
        name: "data".to_owned(),
        blob: file,
        executable: false,
    });
    Op::Client {
        principal: Principal {
            name: "ann".to_owned(),
            role: model::Role::Client,
            fingerprint: [0; 32],
        },
        command: Command::SubmitTask(Submit {
            spec,
            request_id: None,
        }),
        placement: None,
        held: Some(held),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_gets_no_vote_before_it_has_all_that_tasks_refer_to() {
    let mut lab = Lab::new("lacking");
    let members = lab.cluster(1).await;
    let leader = members[0].cluster.clone();
    let bytes = Bytes::from_static(b"a file of a task");
    let file = BlobRef::of(&bytes);
    let held = leader.hold(vec![(file, Some(bytes.clone()))]).await;
    let submit = submit_with(file, held.unwrap());
    let submitted = leader.propose(vec![submit], Timestamp(0)).await.unwrap();
    assert!(submitted.replies[0].is_ok(), "{submitted:?}");
    // Nobody can send it for now.
    let on_disk = lab.data_dir(1).join("blobs").join(file.digest.to_string());
    fs::remove_file(on_disk).unwrap();
    leader.read_small_blob(file).await.unwrap_err();
    assert_eq!(leader.blob_stats().missing, 1);

    let learner = lab.start(2).await;
    let addresses = lab.addresses(2);
    leader
        .add_learner(ControllerId(2), addresses)
        .await
        .unwrap();
    let begun = Instant::now();
    while learner.cluster.blob_stats().missing == 0 {
        assert!(begun.elapsed() < PATIENCE, "it never hears of the file");
        sleep(Duration::from_millis(10)).await;
    }
    let asking = leader.clone();
    let mut promoting = tokio::spawn(async move { asking.promote(ControllerId(2)).await });
    // Without the question for files it has its vote within some milliseconds.
    let early = timeout(Duration::from_millis(500), &mut promoting).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(leader.effective_membership().voter_ids().count(), 1);

    // Once somebody has it, the learner fetches it by itself.
    leader.append_blob(file, 0, bytes).await.unwrap();
    let promoted = timeout(PATIENCE, promoting).await.expect("it has the file");
    promoted.unwrap().unwrap();
    assert_eq!(learner.cluster.blob_stats().missing, 0);
    assert_eq!(leader.effective_membership().voter_ids().count(), 2);
}

/// Some entry may name it of which a member that is cut off has not heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nothing_names_is_deleted_by_none_that_has_no_quorum() {
    let mut lab = Lab::new("collected");
    let mut config = lab.config(1);
    config.patience = Duration::from_millis(300);
    let first = lab.start_with(config).await.unwrap().cluster;
    first.initialize().await.unwrap();
    let second = lab.start(2).await;
    let addresses = lab.addresses(2);
    first.add_member(ControllerId(2), addresses).await.unwrap();
    let bytes = Bytes::from_static(b"uploaded");
    let blob = BlobRef::of(&bytes);
    first.append_blob(blob, 0, bytes).await.unwrap();
    let (early, late) = (Duration::from_secs(590), Duration::from_secs(10));
    assert_eq!(first.collect_after(blob, early).await.unwrap(), 0);
    second.cluster.shutdown().await;
    assert_eq!(first.collect_after(blob, late).await.unwrap(), 0);
    let on_disk = lab.data_dir(1).join("blobs").join(blob.digest.to_string());
    assert!(on_disk.exists());

    let _second = lab.start(2).await;
    let begun = Instant::now();
    while first.collect_after(blob, late).await.unwrap() == 0 {
        assert!(begun.elapsed() < PATIENCE, "it is never deleted");
    }
    assert!(!on_disk.exists());
}

/// A file system whose blobs' share is used up.
fn full_disk() -> Result<Disk, String> {
    let disk = Disk::create()?;
    disk.mount();
    let space = Space::of(disk.path()).unwrap();
    let filler = (space.free - space.kept_from_blobs() / 2).to_string();
    let path = disk.path().join("filler");
    tool("fallocate", &["-l", &filler, path.to_str().unwrap()]).map(|()| disk)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_fetched_for_lack_of_room_is_not_said_to_be_nowhere() {
    let mut lab = Lab::new("no-room");
    let mut disks = Vec::new();
    for id in [2, 3] {
        let disk = match full_disk() {
            Ok(disk) => disk,
            Err(why) => return crash::skip("full disks", &why),
        };
        fs::create_dir(lab.data_dir(id)).unwrap();
        symlink(disk.path(), lab.data_dir(id).join("blobs")).unwrap();
        disks.push(disk);
    }
    let members = lab.cluster(3).await;
    let bytes = Bytes::from(vec![7; 1 << 20]);
    let blob = BlobRef::of(&bytes);
    let with_room = &members[0].cluster;
    with_room.append_blob(blob, 0, bytes).await.unwrap();
    // Asked for by its name alone: whoever lacks it fetches it. By one with room, and by one without.
    for member in &members[..2] {
        let held = member.cluster.hold(vec![(blob, None)]).await;
        assert!(matches!(held, Err(HoldError::NoRoom(_))), "{held:?}");
    }
    for member in members {
        member.cluster.shutdown().await;
    }
    for disk in disks {
        disk.unmount();
    }
}
