//! What attempts need, from a source that breaks off, lies, or has nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use model::{Attachment, BlobRef, Namespace, TaskSpec};
use tempfile::TempDir;

use super::cache::{Failed, Source};
use super::{Fetched, Inputs, Unfetched};

/// Gives these bytes, in pieces, from wherever it is asked; each time it notes from where.
fn source(bytes: Vec<u8>, breaks_after: usize) -> (Source, Arc<Mutex<Vec<u64>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&asked);
    let source: Source = Arc::new(move |_, offset| {
        told.lock().unwrap().push(offset);
        let rest = &bytes[usize::try_from(offset).unwrap()..];
        let pieces = rest.chunks(1_000).take(breaks_after);
        let pieces: Vec<_> = pieces.map(|it| Ok(Bytes::copy_from_slice(it))).collect();
        async move { Ok(stream::iter(pieces).boxed()) }.boxed()
    });
    (source, asked)
}

fn spec_with(name: &str, blob: BlobRef, executable: bool) -> Arc<TaskSpec> {
    let mut spec = TaskSpec::process(Namespace::new("default").unwrap(), vec!["true".into()]);
    spec.blobs.attachments.push(Attachment {
        name: name.into(),
        blob,
        executable,
    });
    Arc::new(spec)
}

fn placed(fetched: &Fetched, dir: &Path) {
    fetched.files.as_ref().unwrap().move_to(dir).unwrap();
}

#[tokio::test]
async fn a_file_comes_in_parts_and_once_for_all_that_need_it() {
    let (dir, scratch) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let bytes: Vec<u8> = (0..10_000_u16).flat_map(u16::to_le_bytes).collect();
    let blob = BlobRef::of(&bytes);
    let (source, asked) = source(bytes.clone(), 6);
    let inputs = Inputs::open(dir.path(), source).unwrap();
    let (one, other) = tokio::join!(
        inputs.fetch(spec_with("data", blob, false)),
        inputs.fetch(spec_with("run", blob, true)),
    );
    placed(&one.unwrap(), scratch.path());
    placed(&other.unwrap(), scratch.path());
    for (name, mode) in [("data", 0o600), ("run", 0o700)] {
        let path = scratch.path().join(name);
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            mode
        );
    }
    assert_eq!(*asked.lock().unwrap(), [0, 6_000, 12_000, 18_000]);
    // What was staged is gone, what was fetched stays.
    assert_eq!(fs::read_dir(dir.path().join("inputs")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path().join("blobs")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_kept_file_that_has_changed_is_fetched_again() {
    let (dir, scratch) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let blob = BlobRef::of(b"data");
    let (source, asked) = source(b"data".to_vec(), 9);
    let inputs = Inputs::open(dir.path(), source).unwrap();
    inputs.fetch(spec_with("data", blob, false)).await.unwrap();
    let kept = dir.path().join("blobs").join(blob.digest.to_string());
    fs::write(&kept, "dato").unwrap();
    let again = inputs.fetch(spec_with("data", blob, false)).await.unwrap();
    placed(&again, scratch.path());
    assert_eq!(fs::read(scratch.path().join("data")).unwrap(), b"data");
    assert_eq!(asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn bytes_that_are_not_those_of_the_file_never_reach_a_task() {
    let dir = TempDir::new().unwrap();
    let (source, _) = source(b"dato".to_vec(), 9);
    let inputs = Inputs::open(dir.path(), source).unwrap();
    let spec = spec_with("data", BlobRef::of(b"data"), false);
    let Some(Unfetched::Now(why)) = inputs.fetch(spec).await.err() else {
        panic!("it may come later");
    };
    assert!(why.contains("attached file `data`"), "{why}");
    assert_eq!(fs::read_dir(dir.path().join("inputs")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_nobody_has_is_given_up_at_once() {
    let dir = TempDir::new().unwrap();
    let nobody: Source =
        Arc::new(|_, _| async { Err(Failed::ForGood("nobody has it".to_owned())) }.boxed());
    let inputs = Inputs::open(dir.path(), nobody).unwrap();
    let begun = tokio::time::Instant::now();
    let spec = spec_with("data", BlobRef::of(b"data"), false);
    let Some(Unfetched::Now(why)) = inputs.fetch(spec).await.err() else {
        panic!("it may come later");
    };
    assert!(why.ends_with("nobody has it"), "{why}");
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(5),
        "it was tried again"
    );
}

#[tokio::test]
async fn an_empty_file_needs_nobody_and_a_long_command_comes_back_whole() {
    let (dir, scratch) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut whole = TaskSpec::process(Namespace::new("default").unwrap(), vec!["sort".into()]);
    whole.command.push("x".repeat(10_000));
    whole.env.insert("A".into(), "1".into());
    let (mut short, bulk) = wire::convert::shorten(whole.clone());
    let bulk = bulk.unwrap();
    assert_eq!(short.command, ["sort"]);
    let named = short.blobs.bulk.as_ref().map(|it| it.blob);
    assert_eq!(named, Some(BlobRef::of(&bulk)));
    let mut empty = BlobRef::of(b"");
    empty.size = 0;
    short.blobs.attachments = spec_with("empty", empty, false).blobs.attachments.clone();
    let (source, _) = source(bulk.to_vec(), 20);
    let inputs = Inputs::open(dir.path(), source).unwrap();
    let fetched = inputs.fetch(Arc::new(short)).await.unwrap();
    placed(&fetched, scratch.path());
    assert_eq!(fs::read(scratch.path().join("empty")).unwrap(), b"");
    assert_eq!(
        (&fetched.spec.command, &fetched.spec.env),
        (&whole.command, &whole.env)
    );
}

#[tokio::test]
async fn what_was_not_needed_for_longest_goes_first() {
    let dir = TempDir::new().unwrap();
    let (source, _) = source(vec![7; 3_000], 9);
    let inputs = Inputs::open(dir.path(), source).unwrap();
    let kept = dir.path().join("blobs");
    for (n, age) in [(1, 30), (2, 10), (3, 20)] {
        let path = kept.join(n.to_string());
        fs::write(&path, vec![0; 1_000]).unwrap();
        let at = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
        fs::File::open(&path).unwrap().set_modified(at).unwrap();
    }
    assert_eq!(inputs.cache.shrink(2_000).unwrap(), 1);
    assert!(!kept.join("1").exists() && kept.join("2").exists());
    assert_eq!(inputs.sweep().unwrap(), 0);
}
