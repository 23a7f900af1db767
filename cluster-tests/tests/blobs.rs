//! Files that go with tasks, and outputs too large for the log: on a majority before anything refers to them, and there
//! whoever dies.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cluster_tests::cluster::grpc_tls;
use cluster_tests::faults;
use cluster_tests::wait;
use futures::stream;
use serde_json::Value;
use tokio::test;
use wire::transport::{self, Timers};
use wire::v1;
use wire::v1::blobs_client::BlobsClient;
use wire::v1::put_blob_part::Part;

use crate::site::{PATIENCE, Site};

const MIB: usize = 1 << 20;

/// A file of bytes that look random, and its sum as `sha256sum` prints it.
fn file(dir: &Path, name: &str, bytes: usize) -> (PathBuf, String) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ bytes as u64;
    let words = (0..bytes.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let content: Vec<u8> = words.take(bytes).collect();
    let path = dir.join(name);
    fs::write(&path, &content).expect("the scratch directory can be written");
    let sum = model::BlobRef::of(&content).digest.to_string();
    (path, sum)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("it is text")
}

/// A task that says what its attached `data.bin` holds.
fn summing(data: &Path) -> [&str; 7] {
    let data = text(data);
    [
        "task",
        "run",
        "--attach",
        data,
        "--",
        "sha256sum",
        "data.bin",
    ]
}

/// The blobs on a controller's disk, by name.
fn blobs(site: &Site, controller: &str) -> Vec<PathBuf> {
    let dir = site.cluster.member(controller).unwrap().data_dir;
    let found = fs::read_dir(dir.join("blobs")).unwrap();
    let files = found.map(|it| it.unwrap().path());
    files.filter(|path| path.is_file()).collect()
}

async fn until_everywhere(site: &Site, sum: &str) {
    wait::until_now("the file on each controller", PATIENCE, || {
        for id in ["c1", "c2", "c3"] {
            let here = blobs(site, id);
            if !here.iter().any(|path| path.ends_with(sum)) {
                return Err(format!("{id} has {here:?}"));
            }
        }
        Ok(())
    })
    .await
    .unwrap();
}

async fn result_of(site: &Site, id: &str) -> Value {
    let task = site.cluster.cli().json(&["task", "get", id]).await.unwrap();
    task["result"].clone()
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn attached_files_are_there_as_they_were_and_large_outputs_come_back_whole() {
    let site = Site::start("blobs", |options| options).await;
    let cli = site.cluster.cli();
    let dir = site.cluster.scratch();
    let (large, sum) = file(dir, "large.bin", 20 * MIB);
    let script = dir.join("run.sh");
    fs::write(
        &script,
        "#!/bin/sh\nsha256sum large.bin; wc -c <empty\nseq 1 20000\n",
    )
    .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).unwrap();
    let empty = dir.join("empty");
    fs::write(&empty, "").unwrap();
    let words = [
        "task",
        "run",
        "--attach",
        text(&large),
        "--attach",
        text(&script),
        "--attach",
        text(&empty),
        "--",
        "./run.sh",
    ];
    let done = cli.expect(&words).await.unwrap();
    let said = done.text();
    let mut lines = said.lines();
    assert_eq!(lines.next().unwrap(), format!("{sum}  large.bin"));
    assert_eq!(lines.next().unwrap(), "0");
    assert_eq!(lines.next_back().unwrap(), "20000");
    assert_eq!(done.stderr, "", "a progress bar is for a terminal");
    until_everywhere(&site, &sum).await;

    // The end of the output, which is over 64 KiB, is kept; not in the log, and on each controller.
    let kept = result_of(&site, "t1").await;
    let tail = kept["stdout"].as_str().unwrap();
    assert!(tail.ends_with("19999\n20000\n") && tail.len() > 60_000);
    assert_eq!(kept["truncated"], true);
    for (n, bytes) in [(2, 5_000), (3, 60_000)] {
        let command = format!("head -c {bytes} /dev/zero | tr '\\0' x; echo no >&2; exit {n}");
        let words = ["task", "run", "--", "sh", "-c", &command];
        assert_eq!(cli.run(&words).await.unwrap().code, Some(3));
        let kept = result_of(&site, &format!("t{n}")).await;
        let stdout = kept["stdout"].as_str().unwrap();
        assert_eq!(stdout.len(), bytes);
        assert!(stdout.chars().all(|it| it == 'x'));
        assert_eq!(
            (&kept["truncated"], &kept["stderr"]),
            (&false.into(), &"no\n".into())
        );
    }
    let log = cli.expect(&["task", "logs", "t2"]).await.unwrap();
    assert_eq!(log.text(), "x".repeat(5_000));
    site.converged().await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_command_and_its_environment_reach_the_agent_whole() {
    let site = Site::start("blobs-long", |options| options.agents(1)).await;
    let cli = site.cluster.cli();
    let (long, value) = ("a".repeat(90_000), "b".repeat(30_000));
    let variable = format!("LONG={value}");
    let words = [
        "task",
        "run",
        "--env",
        &variable,
        "--",
        "sh",
        "-c",
        "echo ${#1} ${#LONG}",
        "sh",
        &long,
    ];
    let done = cli.expect(&words).await.unwrap();
    assert_eq!(done.text(), "90000 30000\n");
    let task = cli.expect(&["task", "get", "t1"]).await.unwrap();
    assert!(
        task.text().contains("echo ${#1} ${#LONG}"),
        "{}",
        task.text()
    );
    // Asked for again under its id it is the same task, though it stands in the log in another form.
    let words = ["task", "submit", "--request-id", "r1", "--", "echo", &long];
    let first = cli.json(&words).await.unwrap();
    let again = cli.json(&words).await.unwrap();
    assert_eq!(first["id"], again["id"]);
    let other = ["task", "submit", "--request-id", "r1", "--", "echo", &value];
    let refused = cli.run(&other).await.unwrap();
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changed_on_a_controllers_disk_is_found_and_fetched_again() {
    let site = Site::start("blobs-flip", |options| options.agents(1)).await;
    let cli = site.cluster.cli();
    let (data, sum) = file(site.cluster.scratch(), "data.bin", 2 * MIB);
    let words = summing(&data);
    cli.expect(&words).await.unwrap();
    until_everywhere(&site, &sum).await;

    // On two of three disks, and the agent has forgotten it.
    let file_at = |id: &str| {
        let dir = site.cluster.member(id).unwrap().data_dir;
        dir.join("blobs").join(&sum)
    };
    let leader = site.cluster.leader().await.unwrap();
    let other = ["c1", "c2", "c3"].into_iter().find(|id| *id != leader);
    let spoiled = [leader.as_str(), other.unwrap()];
    for id in spoiled {
        let mut bytes = fs::read(file_at(id)).unwrap();
        bytes[MIB] ^= 0x01;
        fs::write(file_at(id), bytes).unwrap();
    }
    fs::remove_file(file_at("a1")).unwrap();
    // By its name alone, as a client would that knows it is there: nothing is uploaded. Whomever the agent asks.
    let done = cli.expect(&words).await.unwrap();
    assert_eq!(done.text(), format!("{sum}  data.bin\n"));

    // Nobody asks the other one; it is found in the round that begins with each start.
    for id in spoiled {
        faults::kill(&site.cluster, id).await.unwrap();
        site.restart(id).await;
        let what = format!("the right file on {id} again");
        wait::until_now(&what, PATIENCE, || {
            let bytes = fs::read(file_at(id)).unwrap_or_default();
            let found = model::BlobRef::of(&bytes).digest.to_string();
            match found == sum && !file_at(id).with_extension("damaged").exists() {
                true => Ok(()),
                false => Err(found),
            }
        })
        .await
        .unwrap();
        site.progress.say(format!("{id} fetched {sum} again"));
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_survives_the_death_of_the_leader_that_took_it() {
    let site = Site::start("blobs-kill", |options| options.agents(1)).await;
    let cli = site.cluster.cli();
    let (data, sum) = file(site.cluster.scratch(), "data.bin", 60 * MIB);
    let words = summing(&data);
    let running = cli.start(&words).unwrap();
    let leader = site.cluster.leader().await.unwrap();
    // Some controller takes it; the kill hits whoever that is, or the submit that follows.
    let part = |id: &str| {
        let dir = site.cluster.member(id).ok()?.data_dir.join("blobs");
        let incoming = fs::metadata(dir.join("incoming").join(&sum)).ok();
        incoming.map(|it| it.len()).filter(|len| *len > 0)
    };
    let taking = wait::until_now("an upload under way", PATIENCE, || {
        ["c1", "c2", "c3"]
            .into_iter()
            .find(|id| part(id).is_some())
            .ok_or("nothing came yet")
    })
    .await
    .unwrap();
    faults::kill(&site.cluster, taking).await.unwrap();
    site.progress.say(format!(
        "{taking} killed while the file came ({leader} led)"
    ));
    let done = cluster_tests::cluster::finish("task run".to_owned(), running)
        .await
        .unwrap();
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(done.text(), format!("{sum}  data.bin\n"));
    site.restart(taking).await;
    until_everywhere(&site, &sum).await;
    site.converged().await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_was_cut_goes_on_where_it_stopped_also_after_a_restart() {
    let site = Site::start("blobs-resume", |options| options.agents(1)).await;
    let (data, sum) = file(site.cluster.scratch(), "data.bin", 3 * MIB);
    let bytes = fs::read(&data).unwrap();
    let blob = v1::BlobRef::from(model::BlobRef::of(&bytes));
    let tls = grpc_tls(&site.cluster.credentials().unwrap()).unwrap();
    let first = site.cluster.layout().unwrap().controllers[0].clone();
    let put = async |pieces: Vec<&[u8]>| {
        let channel = transport::channel(&first.grpc, tls.clone(), Timers::default());
        let head = Part::Blob(blob.clone());
        let data = pieces
            .into_iter()
            .map(|it| Part::Data(Bytes::copy_from_slice(it)));
        let parts: Vec<_> = [head].into_iter().chain(data).collect();
        let parts = parts
            .into_iter()
            .map(|part| v1::PutBlobPart { part: Some(part) });
        let replies = BlobsClient::new(channel).put(stream::iter(parts)).await;
        let mut replies = replies.unwrap().into_inner();
        let mut told = Vec::new();
        loop {
            match replies.message().await {
                Ok(Some(reply)) => told.push((reply.offset, reply.held)),
                Ok(None) => return Ok(told),
                Err(status) => return Err((told, status)),
            }
        }
    };
    let (told, cut) = put(vec![&bytes[..MIB], &bytes[MIB..2 * MIB]])
        .await
        .unwrap_err();
    let (one, two) = (MIB as u64, 2 * MIB as u64);
    assert_eq!(told, [(0, false), (one, false), (two, false)]);
    assert!(
        cut.message().contains("2097152 of 3145728 bytes came"),
        "{cut}"
    );
    faults::kill(&site.cluster, "c1").await.unwrap();
    site.restart("c1").await;
    site.converged().await;
    // Bytes that are not those of the file are thrown away, with all that came before.
    let (told, wrong) = put(vec![&bytes[..MIB]]).await.unwrap_err();
    assert_eq!(told, [(two, false)]);
    assert!(wrong.message().contains("not those of the blob"), "{wrong}");
    let (_, cut) = put(vec![&bytes[..MIB]]).await.unwrap_err();
    assert!(cut.message().contains("1048576 of"), "{cut}");
    let told = put(vec![&bytes[MIB..]]).await.unwrap();
    let all = 3 * MIB as u64;
    assert_eq!(told, [(one, false), (all, false), (all, true)]);
    let on = ["c1", "c2", "c3"].into_iter();
    let on = on.filter(|id| blobs(&site, id).iter().any(|path| path.ends_with(&sum)));
    assert!(on.count() >= 2, "held means by a majority");
    let again = put(Vec::new()).await.unwrap();
    assert_eq!(again, [(all, false), (all, true)], "nothing is sent twice");
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_make_no_sense_are_refused_before_anything_is_sent() {
    let site = Site::start("blobs-input", |options| options.agents(1)).await;
    let cli = site.cluster.cli();
    let dir = site.cluster.scratch();
    let huge = dir.join("huge");
    fs::File::create(&huge)
        .unwrap()
        .set_len(65 * MIB as u64)
        .unwrap();
    let (one, _) = file(dir, "one", 10);
    let none = dir.join("none");
    let cases = [
        (vec![text(&none)], "cannot read"),
        (vec![text(dir)], "is not a file"),
        (vec![text(&huge)], "64 MiB"),
        (vec![text(&one), text(&one)], "two attached files"),
    ];
    for (files, expected) in cases {
        let mut words = vec!["task", "submit"];
        files
            .iter()
            .for_each(|file| words.extend(["--attach", file]));
        words.extend(["--", "true"]);
        let refused = cli.run(&words).await.unwrap();
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        assert!(refused.stderr.contains(expected), "{}", refused.stderr);
        assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    }
    let words = [
        "task",
        "submit",
        "--attach",
        text(&one),
        "--model",
        "m",
        "--prompt",
        "p",
    ];
    let refused = cli.run(&words).await.unwrap();
    assert!(
        refused.stderr.contains("attached files"),
        "{}",
        refused.stderr
    );
    let list = cli.json(&["task", "list"]).await.unwrap();
    assert_eq!(list["items"], Value::Array(Vec::new()));
    assert_eq!(blobs(&site, "c1"), Vec::<PathBuf>::new());
}
