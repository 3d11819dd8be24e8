//! Every decoder on good, wrong, cut, mutated and hostile data.

mod common;

use common::{Random, SUPPORTED, compress, sample, with_size, xz};
use image::decompress::{decompress, decompress_file};
use image::{Compression, ImageError};
use proptest::prelude::*;

const LIMIT: usize = 16 << 20;

fn payload(compression: Compression, data: &[u8]) -> Vec<u8> {
    with_size(compression, compress(compression, data), data.len())
}

#[test]
fn every_format_gives_back_the_data() {
    for size in [1, 100, 70_000, 600_000] {
        let data = sample(size);
        for compression in SUPPORTED {
            let payload = payload(compression, &data);
            assert_eq!(Compression::detect(&payload), Some(compression));
            assert!(decompress(&payload, LIMIT).unwrap() == data, "{compression} {size}");
            assert!(decompress_file(&compress(compression, &data), LIMIT).unwrap() == data, "{compression} {size}");
        }
    }
}

#[test]
fn legacy_lz4_blocks_of_8_mib() {
    let data = sample((8 << 20) + 1000);
    let file = compress(Compression::Lz4Legacy, &data);
    assert!(decompress_file(&file, LIMIT).unwrap() == data);
    // Frames may be concatenated.
    let twice = [file.clone(), file].concat();
    assert!(decompress_file(&twice, 17 << 20).unwrap() == [data.clone(), data].concat());
}

#[test]
fn incompressible_blocks_and_long_runs() {
    let mut random = Random(7);
    let noise: Vec<u8> = (0..300_000).map(|_| random.below(256) as u8).collect();
    for data in [noise, vec![0; 2 << 20]] {
        for compression in SUPPORTED {
            assert!(decompress(&payload(compression, &data), LIMIT).unwrap() == data, "{compression}");
        }
    }
}

#[test]
fn a_wrong_appended_size_is_an_error() {
    let data = sample(100_000);
    for compression in SUPPORTED {
        for declared in [0u32, 99_999, 100_001, 5 << 20] {
            let mut payload = payload(compression, &data);
            let end = payload.len() - 4;
            payload[end..].copy_from_slice(&declared.to_le_bytes());
            let error = decompress(&payload, LIMIT).unwrap_err();
            assert!(
                matches!(error, ImageError::SizeMismatch { declared: found, .. } if found == u64::from(declared)),
                "{compression} {declared}: {error}"
            );
        }
    }
}

#[test]
fn the_limit_holds() {
    let data = sample(200_000);
    for compression in SUPPORTED {
        let payload = payload(compression, &data);
        assert!(decompress(&payload, 200_000).is_ok(), "{compression}");
        let error = decompress(&payload, 199_999).unwrap_err();
        assert!(matches!(error, ImageError::TooLarge { size: 200_000, limit: 199_999, .. }), "{compression}: {error}");

        let file = compress(compression, &data);
        assert!(decompress_file(&file, 200_000).is_ok(), "{compression}");
        let error = decompress_file(&file, 199_999).unwrap_err();
        assert!(matches!(error, ImageError::TooLarge { limit: 199_999, .. }), "{compression}: {error}");
    }
}

#[test]
fn trailing_bytes_are_an_error() {
    let data = sample(5000);
    for compression in SUPPORTED {
        let mut file = compress(compression, &data);
        file.extend_from_slice(&[0xa5; 7]);
        assert!(decompress_file(&file, LIMIT).is_err(), "{compression}");
    }
}

#[test]
fn cut_at_every_length() {
    let data = sample(3000);
    for compression in SUPPORTED {
        let file = compress(compression, &data);
        for len in 0..file.len() {
            let result = decompress_file(&file[..len], LIMIT);
            // Legacy LZ4 has no end mark: a cut between blocks is a shorter file. One block here.
            let no_end_mark = compression == Compression::Lz4Legacy && len == 4;
            assert!(result.is_err() || no_end_mark, "{compression} {len}");
            let cut = with_size(compression, file[..len].to_vec(), data.len());
            assert!(decompress(&cut, LIMIT).is_err(), "{compression} {len}");
        }
    }
}

#[test]
fn mutated_data_gives_the_data_or_an_error() {
    let data = sample(20_000);
    let mut random = Random(0x1234_5678);
    for compression in SUPPORTED {
        let good = payload(compression, &data);
        let mut refused = 0;
        for _ in 0..1500 {
            let mut bad = good.clone();
            random.mutate(&mut bad);
            match decompress(&bad, 1 << 20) {
                Ok(content) => assert!(content.len() <= 1 << 20),
                Err(error) => {
                    assert!(!format!("{error}").is_empty());
                    refused += 1;
                }
            }
            // Without a declared size the buffer grows; it must stop at the limit.
            if let Ok(content) = decompress_file(&bad, 1 << 20) {
                assert!(content.len() <= 1 << 20);
            }
        }
        assert!(refused > 1000, "{compression}: only {refused} refused");
    }
}

#[test]
fn checksums_are_verified() {
    let data = sample(4000);
    // The last byte of the payload before any size is a checksum or part of one, except where there is none.
    for (compression, from_end) in [(Compression::Gzip, 8), (Compression::Zstd, 1), (Compression::Lz4Frame, 1)] {
        let mut file = compress(compression, &data);
        let at = file.len() - from_end;
        file[at] ^= 1;
        let error = decompress_file(&file, LIMIT).unwrap_err();
        assert!(matches!(error, ImageError::Corrupt { .. } | ImageError::Field { .. }), "{compression}: {error}");
    }
}

#[test]
fn xz_checks_and_filters() {
    use lzma_rust2::CheckType;
    let data = sample(60_000);
    for check in [CheckType::None, CheckType::Crc32, CheckType::Crc64] {
        for x86 in [false, true] {
            assert!(decompress_file(&xz(&data, check, x86), LIMIT).unwrap() == data, "{check:?} {x86}");
        }
    }
    // SHA-256 is refused by name of the field, not run.
    let error = decompress_file(&xz(&data, CheckType::Sha256, false), LIMIT).unwrap_err();
    assert!(matches!(error, ImageError::Field { what: "xz stream flags", offset: 7, value: 10, .. }), "{error}");
}

#[test]
fn lzma_properties_that_need_large_tables_are_refused() {
    let mut file = compress(Compression::Lzma, &sample(100));
    // lc = 8, lp = 4, pb = 0.
    file[0] = 4 * 9 + 8;
    // The detection wants the default properties, so this is what a caller sees.
    assert!(matches!(decompress_file(&file, LIMIT), Err(ImageError::NotAKernel { .. })));
}

#[test]
fn a_zstd_bomb_stops_at_the_limit() {
    // One frame with a window of 2 TiB and blocks that repeat one byte 128 KiB times: 4 bytes each.
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff];
    for _ in 0..100_000 {
        let block = (128u32 << 10) << 3 | 1 << 1;
        bomb.extend_from_slice(&block.to_le_bytes()[..3]);
        bomb.push(0);
    }
    let error = decompress_file(&bomb, 1 << 20).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { limit: 0x10_0000, .. }), "{error}");
    bomb.extend_from_slice(&(1u32 << 20).to_le_bytes());
    let error = decompress(&bomb, 1 << 20).unwrap_err();
    assert!(matches!(error, ImageError::SizeMismatch { declared: 0x10_0000, .. }), "{error}");
}

#[test]
fn a_declared_zstd_size_over_the_limit_is_refused_before_decoding() {
    // Single segment, content size of 8 bytes: 2^40; then nothing.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1110_0000];
    frame.extend_from_slice(&(1u64 << 40).to_le_bytes());
    assert!(matches!(decompress_file(&frame, 1 << 20), Err(ImageError::TooLarge { .. })));
}

#[test]
fn zstd_frames_may_be_many_and_skippable() {
    let (one, two) = (sample(1000), sample(2500));
    let mut file = compress(Compression::Zstd, &one);
    file.extend_from_slice(&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
    file.extend_from_slice(&compress(Compression::Zstd, &two));
    assert_eq!(decompress_file(&file, LIMIT).unwrap(), [one, two].concat());
}

#[test]
fn gzip_optional_header_fields() {
    let data = sample(500);
    let plain = compress(Compression::Gzip, &data);
    let mut file = plain[..10].to_vec();
    // FHCRC, FEXTRA, FNAME, FCOMMENT
    file[3] = 0b0001_1110;
    file.extend_from_slice(&[3, 0, 1, 2, 3]);
    file.extend_from_slice(b"vmlinux\0a comment\0");
    let crc = (crc32fast::hash(&file) as u16).to_le_bytes();
    file.extend_from_slice(&crc);
    let header = file.len();
    file.extend_from_slice(&plain[10..]);
    assert_eq!(decompress_file(&file, LIMIT).unwrap(), data);
    file[header - 1] ^= 1;
    assert!(matches!(decompress_file(&file, LIMIT), Err(ImageError::Field { what: "gzip CRC16", .. })));
    // A name without its end.
    let mut endless = plain[..10].to_vec();
    endless[3] = 1 << 3;
    endless.extend_from_slice(&[b'x'; 40]);
    assert!(decompress_file(&endless, LIMIT).is_err());
}

#[test]
fn what_cannot_be_decoded_is_named() {
    let error = decompress(b"BZh91AY&SY0000", LIMIT).unwrap_err();
    assert_eq!(error, ImageError::CompressionUnsupported(Compression::Bzip2));
    assert_eq!(format!("{error}"), "compression bzip2 is not supported");
    assert!(matches!(
        decompress(b"what is this", LIMIT),
        Err(ImageError::NotAKernel { first: [b'w', b'h', b'a', b't'] })
    ));
    assert!(matches!(decompress(&[0x1f, 0x8b], LIMIT), Err(ImageError::Truncated { .. })));
    assert!(decompress(&[], LIMIT).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn round_trip(data in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..20_000), which in 0usize..7) {
        // Bytes that repeat now and then.
        let data: Vec<u8> = data.iter().chain(&data).copied().collect();
        let compression = SUPPORTED[which];
        prop_assert_eq!(decompress(&payload(compression, &data), LIMIT).unwrap(), data);
    }

    #[test]
    fn noise_after_a_magic_is_no_panic(which in 0usize..7, noise in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut file = compress(SUPPORTED[which], b"");
        file.truncate(6);
        file.extend_from_slice(&noise);
        if let Ok(content) = decompress(&file, 1 << 16) {
            prop_assert!(content.len() <= 1 << 16);
        }
        if let Ok(content) = decompress_file(&file, 1 << 16) {
            prop_assert!(content.len() <= 1 << 16);
        }
    }
}
