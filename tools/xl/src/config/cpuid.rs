//! `cpuid=` of xl.cfg(5): which CPU features a guest sees.
//!
//! Two forms. A string, `"host,avx=0,family=0x17"`, changes features and fields by name; a list, `["1:ecx=x…x"]`, gives all bits of
//! registers. Both end as masks over the policy that a guest has without the key (`libxc::plan::cpuid_mask`).

use super::schema::nearest;
use super::value::{self, Value};
use libxc::plan::cpuid_mask::{Bit, LeafMask, RegisterMask};
use public_abi::cpu_features::CpuFeature;
use public_abi::cpu_policy::{CpuidRegister, FEATURESET_WORDS, WordSource};

/// A field of a leaf: some bits of a register that have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    leaf: u32,
    subleaf: Option<u32>,
    /// 0 to 3: EAX to EDX.
    register: usize,
    /// Its lowest bit, and how many there are.
    bit: usize,
    length: usize,
}

const fn field(leaf: u32, register: usize, bit: usize, length: usize) -> Field {
    Field { leaf, subleaf: None, register, bit, length }
}

const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

/// Fields of more than a bit, and features that xl.cfg(5) calls otherwise than Xen's headers do.
const FIELDS: &[(&str, Field)] = &[
    ("maxleaf", field(0, EAX, 0, 32)),
    ("stepping", field(1, EAX, 0, 4)),
    ("model", field(1, EAX, 4, 8)),
    ("family", field(1, EAX, 8, 8)),
    ("brandid", field(1, EBX, 0, 8)),
    ("clflush", field(1, EBX, 8, 8)),
    ("proccount", field(1, EBX, 16, 8)),
    ("localapicid", field(1, EBX, 24, 8)),
    ("est", field(1, ECX, 7, 1)),
    ("cntxid", field(1, ECX, 10, 1)),
    ("cmpxchg16", field(1, ECX, 13, 1)),
    ("sse4_1", field(1, ECX, 19, 1)),
    ("sse4.1", field(1, ECX, 19, 1)),
    ("sse4_2", field(1, ECX, 20, 1)),
    ("sse4.2", field(1, ECX, 20, 1)),
    ("aes", field(1, ECX, 25, 1)),
    ("cmpxchg8", field(1, EDX, 8, 1)),
    ("sysenter", field(1, EDX, 11, 1)),
    ("psn", field(1, EDX, 18, 1)),
    ("clfsh", field(1, EDX, 19, 1)),
    ("tm", field(1, EDX, 29, 1)),
    ("ia64", field(1, EDX, 30, 1)),
    ("pbe", field(1, EDX, 31, 1)),
    ("procpkg", Field { subleaf: Some(0), ..field(4, EAX, 26, 6) }),
    ("arat", field(6, EAX, 2, 1)),
    ("tsc_adjust", Field { subleaf: Some(0), ..field(7, EBX, 1, 1) }),
    ("cmt", Field { subleaf: Some(0), ..field(7, EBX, 12, 1) }),
    ("maxhvleaf", field(0x4000_0000, EAX, 0, 8)),
    ("lahfsahf", field(0x8000_0001, ECX, 0, 1)),
    ("cmplegacy", field(0x8000_0001, ECX, 1, 1)),
    ("altmovcr8", field(0x8000_0001, ECX, 4, 1)),
    ("nodeid", field(0x8000_0001, ECX, 19, 1)),
    ("perfctr_core", field(0x8000_0001, ECX, 23, 1)),
    ("perfctr_nb", field(0x8000_0001, ECX, 24, 1)),
    ("invtsc", field(0x8000_0007, EDX, 8, 1)),
    ("ppin", field(0x8000_0008, EBX, 23, 1)),
    ("btc-no", field(0x8000_0008, EBX, 29, 1)),
    ("nc", field(0x8000_0008, ECX, 0, 8)),
    ("apicidsize", field(0x8000_0008, ECX, 12, 4)),
    ("svm_npt", field(0x8000_000a, EDX, 0, 1)),
    ("svm_lbrv", field(0x8000_000a, EDX, 1, 1)),
    ("svm_nrips", field(0x8000_000a, EDX, 3, 1)),
    ("svm_tscrate", field(0x8000_000a, EDX, 4, 1)),
    ("svm_vmcbclean", field(0x8000_000a, EDX, 5, 1)),
    ("svm_decode", field(0x8000_000a, EDX, 7, 1)),
    ("svm_pausefilt", field(0x8000_000a, EDX, 10, 1)),
    ("lfence+", field(0x8000_0021, EAX, 2, 1)),
];

/// Reads the key's value.
pub fn parse(value: &Value) -> Result<Vec<LeafMask>, String> {
    let mut masks = Vec::new();
    match (value.text(), value.list()) {
        (Some(text), _) => by_name(text, &mut masks)?,
        (None, Some(list)) => {
            for element in list {
                let text =
                    element.text().ok_or("a list inside the list, where a string such as \"1:ecx=…\" should be")?;
                by_register(text, &mut masks).map_err(|why| format!("`{}': {why}", text.escape_debug()))?;
            }
        }
        (None, None) => {}
    }
    Ok(masks)
}

fn mask_of(masks: &mut Vec<LeafMask>, leaf: u32, subleaf: Option<u32>) -> &mut LeafMask {
    let known = masks.iter().position(|mask| (mask.leaf, mask.subleaf) == (leaf, subleaf));
    let place = known.unwrap_or(masks.len());
    if known.is_none() {
        masks.push(LeafMask::new(leaf, subleaf));
    }
    &mut masks[place]
}

/// `host,NAME=VALUE,…`.
fn by_name(text: &str, masks: &mut Vec<LeafMask>) -> Result<(), String> {
    let mut parts = text.split(',').filter(|part| !part.is_empty());
    match parts.next() {
        None => return Ok(()),
        Some("host") => {}
        Some(other) => return Err(format!("it must begin with \"host\", not `{}'", other.escape_debug())),
    }
    for part in parts {
        let wrong = |why: String| format!("`{}': {why}", part.escape_debug());
        let (name, value) = part.split_once('=').ok_or_else(|| wrong("there is no `='".into()))?;
        let field = find(name).map_err(wrong)?;
        let mask = mask_of(masks, field.leaf, field.subleaf);
        let register = mask.registers[field.register].get_or_insert_default();
        set(register, name, field, value).map_err(wrong)?;
    }
    Ok(())
}

fn find(name: &str) -> Result<Field, String> {
    if let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) {
        return Ok(*field);
    }
    let feature = CpuFeature::ALL.iter().find(|feature| feature_name(**feature) == name);
    let Some(feature) = feature else {
        let near = nearest(name, FIELDS.iter().map(|(known, _)| *known));
        let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}'?"));
        return Err(format!("unknown CPU feature{hint}"));
    };
    let (word, bit) = (feature.number() / 32, (feature.number() % 32) as usize);
    match FEATURESET_WORDS.get(word as usize) {
        Some(WordSource::Cpuid { leaf, subleaf, register }) => {
            let register = match register {
                CpuidRegister::Eax => EAX,
                CpuidRegister::Ebx => EBX,
                CpuidRegister::Ecx => ECX,
                CpuidRegister::Edx => EDX,
            };
            let subleaf = matches!(leaf, 7 | 0xd).then_some(*subleaf);
            Ok(Field { leaf: *leaf, subleaf, register, bit, length: 1 })
        }
        _ => Err("it is in an MSR, whose bits cannot be changed yet".into()),
    }
}

/// xl's name of a feature: that of Xen's headers in small letters, with hyphens.
fn feature_name(feature: CpuFeature) -> String {
    feature.name().to_ascii_lowercase().replace('_', "-")
}

/// Sets a field to a number, or all of its bits to what a letter says.
fn set(register: &mut RegisterMask, name: &str, field: Field, value: &str) -> Result<(), String> {
    let Some(number) = number(value) else {
        let mut letters = value.chars();
        let bit = letters.next().filter(|letter| "xks".contains(*letter)).and_then(Bit::from_letter);
        let (Some(bit), None) = (bit, letters.next()) else {
            return Err("the value must be a number, x, k or s".into());
        };
        for (place, length) in places(name, field) {
            register.0[place..place + length].fill(bit);
        }
        return Ok(());
    };
    // Family and model have two places (AMD APM volume 3, Fn0000_0001_EAX): the second adds to a family of 15, and goes before the
    // four bits of a model.
    let (most, values) = match name {
        "family" => (15 + 0xff, [number.min(15), number.saturating_sub(15)]),
        "model" => (0xff, [number & 0xf, number >> 4]),
        _ => (u32::MAX >> (32 - field.length), [number, 0]),
    };
    if number > most {
        return Err(format!("the value must be {most:#x} at the most"));
    }
    for ((place, length), value) in places(name, field).zip(values) {
        for (at, bit) in register.0[place..place + length].iter_mut().enumerate() {
            *bit = if value >> at & 1 == 0 { Bit::Clear } else { Bit::Set };
        }
    }
    Ok(())
}

/// Where a field's bits are: the lowest, and how many; family and model have a second place.
fn places(name: &str, field: Field) -> impl Iterator<Item = (usize, usize)> {
    let (first, second) = match name {
        "family" => ((8, 4), Some((20, 8))),
        "model" => ((4, 4), Some((16, 4))),
        _ => ((field.bit, field.length), None),
    };
    std::iter::once(first).chain(second)
}

/// `LEAF[,SUBLEAF]:REGISTER=BITS[,REGISTER=BITS…]`, 32 letters for the bits, the highest first.
fn by_register(text: &str, masks: &mut Vec<LeafMask>) -> Result<(), String> {
    let (place, registers) = text.split_once(':').ok_or("there is no `:'")?;
    let (leaf, subleaf) = place.split_once(',').map_or((place, None), |(leaf, subleaf)| (leaf, Some(subleaf)));
    let leaf = place_number(leaf, "leaf")?;
    let subleaf = subleaf.map(|subleaf| place_number(subleaf, "sub-leaf")).transpose()?;
    let mask = mask_of(masks, leaf, subleaf);
    for part in registers.split(',').map(str::trim_start).filter(|part| !part.is_empty()) {
        let (register, bits) = part.split_once('=').ok_or("there is no `=' after a register")?;
        let index = ["eax", "ebx", "ecx", "edx"].iter().position(|known| *known == register);
        let index =
            index.ok_or_else(|| format!("`{}' is no register; there are eax to edx", register.escape_debug()))?;
        mask.registers[index] = Some(all_bits(bits)?);
    }
    Ok(())
}

/// A number as it may stand anywhere in xl.cfg.
fn number(text: &str) -> Option<u32> {
    value::number(text).ok().and_then(|number| u32::try_from(number).ok())
}

fn place_number(text: &str, what: &str) -> Result<u32, String> {
    number(text).ok_or_else(|| format!("`{}' is no number of a {what}", text.escape_debug()))
}

fn all_bits(text: &str) -> Result<RegisterMask, String> {
    let mut bits = Vec::new();
    for letter in text.chars() {
        let bit = Bit::from_letter(letter);
        bits.push(bit.ok_or_else(|| format!("`{}' is none of 0, 1, x, k and s", letter.escape_debug()))?);
    }
    bits.reverse();
    let count = bits.len();
    bits.try_into().map(RegisterMask).map_err(|_| format!("a register has 32 bits, not {count}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Result<Vec<LeafMask>, String> {
        let mut masks = Vec::new();
        by_name(value, &mut masks).map(|()| masks)
    }

    fn shown(masks: &[LeafMask]) -> Vec<String> {
        let letters = |mask: &LeafMask| {
            let registers = mask.registers.iter().map(|register| register.map_or("-".into(), |bits| bits.to_string()));
            format!("{mask}: {}", registers.collect::<Vec<_>>().join(" "))
        };
        masks.iter().map(letters).collect()
    }

    #[test]
    fn features_and_fields_by_name() {
        let masks = text("host,avx=0,xsave=k,sse4.1=1,nx=s,smep=x").unwrap();
        let expected = [
            "leaf 0x1: - - xxx0xkxxxxxx1xxxxxxxxxxxxxxxxxxx -",
            "leaf 0x80000001: - - - xxxxxxxxxxxsxxxxxxxxxxxxxxxxxxxx",
            "leaf 0x7, sub-leaf 0: - xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx - -",
        ];
        assert_eq!(shown(&masks), expected);
        assert_eq!(text("host").unwrap(), []);
        assert_eq!(text("").unwrap(), []);
    }

    #[test]
    fn family_and_model_have_two_places() {
        // Family 0x17 is 15 and 8, model 0x31 is 1 and 3.
        let masks = text("host,family=0x17,model=0x31,stepping=2").unwrap();
        assert_eq!(shown(&masks), ["leaf 0x1: xxxx000010000011xxxx111100010010 - - -"]);
        assert_eq!(shown(&text("host,family=6").unwrap()), ["leaf 0x1: xxxx00000000xxxxxxxx0110xxxxxxxx - - -"]);
        assert_eq!(shown(&text("host,family=k").unwrap()), ["leaf 0x1: xxxxkkkkkkkkxxxxxxxxkkkkxxxxxxxx - - -"]);
    }

    #[test]
    fn registers_bit_by_bit() {
        let mut masks = Vec::new();
        by_register("0x7,0:ebx=1xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx0, edx=kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk", &mut masks)
            .unwrap();
        let expected = "leaf 0x7, sub-leaf 0: - 1xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx0 - kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk";
        assert_eq!(shown(&masks), [expected]);
    }

    #[test]
    fn mistakes_say_what_and_where() {
        let refused = |value: &str| text(value).unwrap_err();
        assert_eq!(refused("avx=0"), "it must begin with \"host\", not `avx=0'");
        assert_eq!(refused("host,avx"), "`avx': there is no `='");
        assert_eq!(refused("host,familly=6"), "`familly=6': unknown CPU feature; did you mean `family'?");
        assert_eq!(refused("host,avx=2"), "`avx=2': the value must be 0x1 at the most");
        assert_eq!(refused("host,family=0x10f"), "`family=0x10f': the value must be 0x10e at the most");
        assert_eq!(refused("host,avx=y"), "`avx=y': the value must be a number, x, k or s");
        let list = |value: &str| by_register(value, &mut Vec::new()).unwrap_err();
        assert_eq!(list("ecx=0"), "there is no `:'");
        assert_eq!(list("z:ecx=0"), "`z' is no number of a leaf");
        assert_eq!(list("1,z:ecx=0"), "`z' is no number of a sub-leaf");
        assert_eq!(list("1:efx=0"), "`efx' is no register; there are eax to edx");
        assert_eq!(list("1:ecx=01"), "a register has 32 bits, not 2");
        assert_eq!(list("1:ecx=z"), "`z' is none of 0, 1, x, k and s");
    }

    #[test]
    fn every_feature_of_a_leaf_has_a_name_of_its_own() {
        let mut names: Vec<String> = CpuFeature::ALL.iter().map(|feature| feature_name(*feature)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CpuFeature::ALL.len());
        for (name, field) in FIELDS.iter().filter(|(_, field)| field.length == 1) {
            // Where both lists know a name it is the same bit.
            let same = CpuFeature::ALL.iter().find(|feature| feature_name(**feature) == *name);
            assert!(same.is_none_or(|feature| feature.number() as usize % 32 == field.bit), "{name}");
        }
    }
}
