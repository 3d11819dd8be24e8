//! The decoders against the programs that kernels are really compressed with, called as Linux's build calls them.
//! A program that is not installed is named and left out.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use image::Compression;
use image::decompress::{decompress, decompress_file};

/// Program, arguments (scripts/Makefile.lib and scripts/xz_wrap.sh of Linux, and the programs' defaults), format.
const TOOLS: [(&str, &[&str], Compression); 16] = [
    ("gzip", &["-n", "-9", "-c"], Compression::Gzip),
    ("gzip", &["-1", "-c"], Compression::Gzip),
    ("xz", &["--check=crc32", "--x86", "--lzma2=dict=128MiB", "-c"], Compression::Xz),
    ("xz", &["--check=crc32", "--lzma2=dict=1MiB", "-c"], Compression::Xz),
    ("xz", &["-9", "-c"], Compression::Xz),
    ("xz", &["-0", "--block-size=100000", "-c"], Compression::Xz),
    ("xz", &["--format=lzma", "-9", "-c"], Compression::Lzma),
    ("zstd", &["-22", "--ultra", "-c"], Compression::Zstd),
    ("zstd", &["-19", "-c"], Compression::Zstd),
    ("zstd", &["-1", "--no-check", "-c"], Compression::Zstd),
    ("zstd", &["-3", "--long=27", "-c"], Compression::Zstd),
    ("lz4", &["-l", "-9", "-c"], Compression::Lz4Legacy),
    ("lz4", &["-9", "-BD", "-BX", "--content-size", "-c"], Compression::Lz4Frame),
    ("lz4", &["-1", "-B4", "-c"], Compression::Lz4Frame),
    ("lzop", &["-9", "-c"], Compression::Lzo),
    ("lzop", &["-1", "--crc32", "-c"], Compression::Lzo),
];

/// What the program makes of the data; `None` when it is not installed.
fn run(program: &str, arguments: &[&str], data: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(data).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{program} {arguments:?}");
    Some(output.stdout)
}

#[test]
fn the_real_compressors() {
    let data = common::sample(3 << 20);
    for (program, arguments, compression) in TOOLS {
        let Some(file) = run(program, arguments, &data) else {
            println!("{program} is not installed: {compression} was not compared with it");
            continue;
        };
        assert_eq!(Compression::detect(&file), Some(compression), "{program} {arguments:?}");
        assert!(decompress_file(&file, 4 << 20).unwrap() == data, "{program} {arguments:?}");
        let payload = common::with_size(compression, file, data.len());
        assert!(decompress(&payload, data.len()).unwrap() == data, "{program} {arguments:?}");
    }
}
