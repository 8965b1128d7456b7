//! What the files in `proto/` generate.

/// Messages, clients and servers of package `maxhost.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("maxhost.v1");
}

/// Messages, client and server of package `externalscaler`, which autoscalers speak.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod externalscaler {
    tonic::include_proto!("externalscaler");
}

/// The compiled files, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("maxhost");
