//! Generates `wire::v1` from every `.proto` file in `proto/quorate/v1`.
//!
//! The files are compiled with `protox`, in Rust, so that a fresh machine needs no `protoc`.
//! `bytes` fields become `bytes::Bytes`: a chunk of output or a piece of the log is then a slice of
//! the received frame instead of a copy of it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let folder = root.join("quorate/v1");
    // The folder, not only its files: a new file must be generated too.
    println!("cargo::rerun-if-changed={}", folder.display());
    let files = proto_files(&folder)?;
    for file in &files {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    let descriptors = protox::compile(&files, [&root])?;
    tonic_prost_build::configure()
        .bytes(".")
        // Named by the digest of its bytes, so it needs an order.
        .btree_map(".quorate.v1.ProcessBulk.env")
        // Few tasks have one, and each frame of a session would be as large as if it had.
        .boxed(".quorate.v1.TaskSpec.inference")
        .boxed(".quorate.v1.TaskSpec.bulk")
        .boxed(".quorate.v1.Assign.spec")
        // No generated `connect(address)`: channels come from `transport`, with its limits, and the name
        // would clash with the `Connect` method of a service.
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}

/// Sorted, so that the generated code does not depend on the order of a directory listing.
fn proto_files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
