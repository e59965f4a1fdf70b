//! Lists every `.avsc` file of `schemas/` for the crate to compile in, current and historical.
//!
//! A file that is added to the folder is part of the next build; there is no list to forget.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?);
    let root = manifest.join("../../schemas").canonicalize()?;
    println!("cargo:rerun-if-changed={}", root.display());

    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();

    let mut code = String::from("&[\n");
    for file in files {
        let subject = file.strip_prefix(&root).unwrap_or(&file).with_extension("");
        let subject = subject.to_string_lossy().replace('\\', "/");
        // Types that stand inlined in others are no contract of their own.
        if subject.starts_with("shared/") {
            continue;
        }
        let _ = writeln!(code, "({subject:?}, include_str!({:?})),", file.to_string_lossy());
    }
    code.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    fs::write(out.join("schema_files.rs"), code)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "avsc") {
            files.push(path);
        }
    }
    Ok(())
}
