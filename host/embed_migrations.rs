//! The build script of both stores: it embeds the migrations of the package that is compiled.
//!
//! `migrations.rs` in the output folder is an array of number, description and text, one for each file
//! `migrations/NUMBER_DESCRIPTION.sql`, in the order of their numbers. A new file is noticed. The macro of sqlx would do the same,
//! but it needs sqlx and SQLite compiled once more, for the compiler to run.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=migrations");
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("migrations");
    let mut migrations = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let parts = name.strip_suffix(".sql").and_then(|stem| stem.split_once('_'));
        let (number, description) =
            parts.ok_or_else(|| format!("{} is not called NUMBER_DESCRIPTION.sql", path.display()))?;
        migrations.push((number.parse::<i64>()?, description.replace('_', " "), path));
    }
    migrations.sort();
    let entry = |(number, description, path): &(i64, String, PathBuf)| {
        format!("    ({number}, {description:?}, include_str!({path:?})),\n")
    };
    let entries: String = migrations.iter().map(entry).collect();
    fs::write(Path::new(&env::var("OUT_DIR")?).join("migrations.rs"), format!("[\n{entries}]\n"))?;
    Ok(())
}
