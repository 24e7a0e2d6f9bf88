//! Generates the clients of all services in `puna.v1`. `PUNA_PROTO` is the folder `proto` of Puna.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("PUNA_PROTO").unwrap_or("../../../proto".into()));
    let files = fs::read_dir(root.join("puna/v1"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    println!("cargo::rerun-if-changed={}", root.display());
    println!("cargo::rerun-if-env-changed=PUNA_PROTO");
    tonic_prost_build::configure().build_server(false).compile_protos(&files, &[root])?;
    Ok(())
}
