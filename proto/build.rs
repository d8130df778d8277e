//! Compiles `tributary/v1/*.proto` with a compiler written in Rust: no protoc needed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

const FILES: [&str; 11] = [
    "tributary/v1/common.proto",
    "tributary/v1/node.proto",
    "tributary/v1/channels.proto",
    "tributary/v1/batches.proto",
    "tributary/v1/payments.proto",
    "tributary/v1/wallet.proto",
    "tributary/v1/events.proto",
    "tributary/v1/tower.proto",
    "tributary/v1/tokens.proto",
    "tributary/v1/webhooks.proto",
    "tributary/v1/payouts.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=tributary");
    let descriptors = protox::compile(FILES, ["."])?;
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);

    // Reflection and the JSON output of the command line read the descriptors; comments,
    // which are most of their size, serve neither.
    let mut lean = descriptors.clone();
    for file in &mut lean.file {
        file.source_code_info = None;
    }
    fs::write(out_dir.join("tributary_descriptor.bin"), lean.encode_to_vec())?;

    // The JSON output finds a message's descriptor by its name.
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
