//! Compiles the protobuf files with protox: no protoc is needed.

use std::error::Error;
use std::path::PathBuf;

const FILES: [&str; 7] = [
    "maxhost/v1/common.proto",
    "maxhost/v1/flow.proto",
    "maxhost/v1/network.proto",
    "maxhost/v1/host.proto",
    "maxhost/v1/ledger.proto",
    "maxhost/v1/attachment.proto",
    "externalscaler/externalscaler.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("maxhost.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure().btree_map(".").compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
