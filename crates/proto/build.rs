//! Compiles the files under `proto/` with a parser written in Rust, so that no
//! machine needs protoc.

use std::path::{Path, PathBuf};

use prost::Message as _;

/// Files with messages that HTTP clients send as JSON, and the types that may
/// be in an `Any` of theirs.
const IN_JSON: [&str; 6] = [
    "dapr/proto/runtime/v1/ai.proto",
    "dapr/proto/runtime/v1/crypto.proto",
    "google/protobuf/duration.proto",
    "google/protobuf/struct.proto",
    "google/protobuf/timestamp.proto",
    "google/protobuf/wrappers.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked when it runs: a cached program may have been built for another clone.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("run by cargo only")?;
    let root = Path::new(&here).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    let in_json = protox::compile(IN_JSON, [&root])?;
    let into = std::env::var_os("OUT_DIR").ok_or("run by cargo only")?;
    std::fs::write(
        Path::new(&into).join("in_json.bin"),
        in_json.encode_to_vec(),
    )?;
    let descriptors = protox::compile(&files, [&root])?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_client(true)
        .build_server(true)
        .generate_default_stubs(true)
        .compile_fds(descriptors)?;
    Ok(())
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            into.push(path);
        }
    }
    Ok(())
}
