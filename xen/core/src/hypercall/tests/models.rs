//! Properties: copies of maps and the console's input agree with the plainest way to say what they should do.

use super::support::{put_bytes, room, take_array, with_world};
use crate::domain::console::{Effect, INPUT_BYTES, Input, Listener};
use crate::hypercall::bitmaps;
use machine::DomId;
use proptest::prelude::*;
use public_abi::GuestPtr;
use public_abi::bitmap::Bitmap;
use std::collections::VecDeque;
use std::vec::Vec;

/// Bit `index` of a map in bytes.
fn bit(bytes: &[u8], index: usize) -> bool {
    bytes.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 != 0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn maps_are_read_bit_by_bit(bytes in prop::collection::vec(any::<u8>(), 0..12), cut in 0_usize..8, cpus in 1_usize..=64) {
        let nr_bits = (bytes.len() * 8).saturating_sub(cut);
        with_world(|world| {
            let map = Bitmap {
                bitmap: GuestPtr::from_address(put_bytes(&bytes)),
                nr_bits: u32::try_from(nr_bits).unwrap(),
                ..Bitmap::default()
            };
            let mut set = 0;
            world.call(DomId::CONTROL, |caller| {
                set = bitmaps::read(caller, &map, cpus)?;
                Ok(0)
            }).unwrap();
            for index in 0..64 {
                let expected = index < nr_bits && index < cpus && bit(&bytes, index);
                assert_eq!(set >> index & 1 != 0, expected, "bit {index} of {nr_bits} on {cpus} CPUs");
            }
        });
    }

    #[test]
    fn maps_are_written_bit_by_bit(set in any::<u64>(), length in 0_usize..200, cut in 0_usize..8, cpus in 1_usize..=64) {
        let nr_bits = (length * 8).saturating_sub(cut);
        with_world(|world| {
            let bitmap = room::<u8>(length + 1, 0xee);
            let map = Bitmap { bitmap, nr_bits: u32::try_from(nr_bits).unwrap(), ..Bitmap::default() };
            world.call(DomId::CONTROL, |caller| {
                bitmaps::write(caller, &map, set, cpus)?;
                Ok(0)
            }).unwrap();
            let bytes = take_array(bitmap, length as u64 + 1);
            let written = nr_bits.div_ceil(8);
            for index in 0..written * 8 {
                assert_eq!(bit(&bytes, index), index < cpus && set >> index & 1 != 0, "bit {index}");
            }
            assert!(bytes[written..].iter().all(|byte| *byte == 0xee), "not one byte more");
        });
    }

    /// The console's input against a model: runs of Ctrl-A are counted, everything else goes to the listener.
    #[test]
    fn input_goes_to_the_listener(bytes in prop::collection::vec(prop_oneof![Just(1_u8), any::<u8>()], 0..400)) {
        let mut input = Input::new();
        let (mut to_domain, mut keys, mut model_keys) = (VecDeque::new(), Vec::new(), Vec::new());
        let (mut run, mut listens) = (0, true);
        for byte in &bytes {
            match input.feed(*byte) {
                Effect::Key(held, key) => {
                    keys.extend(std::iter::repeat_n(1, usize::from(held)));
                    keys.push(key);
                }
                Effect::Switched(listener) => prop_assert_eq!(listener == Listener::ControlDomain, !listens),
                Effect::None | Effect::Input => {}
            }
            if *byte == 1 {
                run += 1;
                if run == 3 {
                    (run, listens) = (0, !listens);
                }
                continue;
            }
            for one in std::iter::repeat_n(1, run).chain([*byte]) {
                if !listens {
                    model_keys.push(one);
                } else if to_domain.len() < INPUT_BYTES {
                    to_domain.push_back(one);
                }
            }
            run = 0;
        }
        let mut out = [0; INPUT_BYTES];
        let count = input.take(&mut out);
        prop_assert_eq!(&out[..count], to_domain.make_contiguous());
        prop_assert_eq!(keys, model_keys);
    }
}
