//! xen_version: every sub-operation, and that no stale bytes follow the strings (XSA-122).

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Role, Test, call, println, role};
    use public_abi::version::{Feature, FeatureInfo, VersionOp};
    use public_abi::{Errno, Hypercall};
    use rt::memory;

    guests::guest!("xen_version", run);

    const FILL: u8 = 0xa5;

    fn run(test: &mut Test) {
        let version = call::raw(Hypercall::XenVersion, [0; 5]);
        test.check("version", version >> 16 == 4 && version & 0xffff >= 17, format_args!("{version:#x}"));
        strings(test);
        features(test);
        let page_size = call::raw(Hypercall::XenVersion, [u64::from(VersionOp::Pagesize.number()), 0, 0, 0, 0]);
        test.equal("page size", page_size, 4096);
        build_id(test);
        for number in [11, 63, 0x7fff_ffff, 0xffff_ffff] {
            let buffer = memory::take_pages(1);
            test.fails("unknown", call::raw(Hypercall::XenVersion, [number, buffer, 0, 0, 0]), Errno::ENOSYS);
        }
    }

    fn ask(operation: VersionOp, buffer: u64) -> i64 {
        call::raw(Hypercall::XenVersion, [u64::from(operation.number()), buffer, 0, 0, 0])
    }

    /// Each of these fills a buffer of a fixed size with zero-terminated strings of the given sizes.
    fn strings(test: &mut Test) {
        let buffer = memory::take_pages(1);
        let list: [(VersionOp, &[u64]); 6] = [
            (VersionOp::ExtraVersion, &[16]),
            (VersionOp::CompileInfo, &[64, 16, 32, 32]),
            (VersionOp::Capabilities, &[1024]),
            (VersionOp::Changeset, &[64]),
            (VersionOp::Commandline, &[1024]),
            (VersionOp::GuestHandle, &[]),
        ];
        for (operation, fields) in list {
            fill(buffer);
            let result = ask(operation, buffer);
            let size: u64 = if operation == VersionOp::GuestHandle { 16 } else { fields.iter().sum() };
            println!("GUEST-INFO {}: {result}", operation.name());
            test.succeeds(operation.name(), result);
            test.equal("bytes after the structure are not touched", memory::all_bytes(buffer + size, 64, FILL), Ok(()));
            let mut field = buffer;
            // A guest is not shown the command line. Xen then writes the end of an empty string and leaves the rest alone.
            let hidden = operation == VersionOp::Commandline && role() == Role::Guest;
            for length in fields {
                let end = (0..*length).find(|offset| memory::read::<u8>(field + offset) == 0).unwrap_or(*length);
                test.check("terminated", end < *length, operation.name());
                let rest = memory::all_bytes(field + end, length - end, 0);
                test.check(
                    "zeroes to the end",
                    rest.is_ok() || (hidden && memory::all_bytes(field + end + 1, length - end - 1, FILL).is_ok()),
                    format_args!("{} at {rest:?} of {length}", operation.name()),
                );
                field += length;
            }
        }
        fill(buffer);
        test.succeeds("platform parameters", ask(VersionOp::PlatformParameters, buffer));
        println!("GUEST-INFO virt_start {:#x}", memory::read::<u64>(buffer));
        test.equal("bytes after the parameters", memory::all_bytes(buffer + 8, 64, FILL), Ok(()));
    }

    fn fill(buffer: u64) {
        (0..2048).for_each(|offset| memory::write(buffer + offset, FILL));
    }

    fn features(test: &mut Test) {
        let mut info = FeatureInfo { submap_idx: 0, submap: 0 };
        test.succeeds("features", call::version(VersionOp::GetFeatures, &mut info));
        println!("GUEST-INFO features {:#x}", info.submap);
        let has = |feature: Feature| info.submap & feature.bit() != 0;
        test.equal("the dom0 feature is the control domain's", has(Feature::Dom0), role() == Role::Control);
        for feature in [
            Feature::WritablePageTables,
            Feature::AutoTranslatedPhysmap,
            Feature::HvmCallbackVector,
            Feature::HvmSafePvclock,
            Feature::MemoryOpVnodeSupported,
        ] {
            test.check("feature", has(feature), feature.name());
        }
        test.holds("no physical interrupts through event channels", !has(Feature::HvmPirqs));
        test.holds("one of the two mapping features", has(Feature::DirectMapped) != has(Feature::NotDirectMapped));
        let mut info = FeatureInfo { submap_idx: 1, submap: 0x5555 };
        test.fails("submap 1", call::version(VersionOp::GetFeatures, &mut info), Errno::EINVAL);
        test.equal("submap 1 leaves the buffer", info.submap, 0x5555);
    }

    fn build_id(test: &mut Test) {
        let length = ask(VersionOp::BuildId, 0);
        println!("GUEST-INFO build id of {length} bytes");
        if role() == Role::Guest {
            test.fails("a guest is not told", length, Errno::EPERM);
            return;
        }
        test.check("length of the build id", (8..=64).contains(&length), length);
        let buffer = memory::take_pages(1);
        fill(buffer);
        memory::write(buffer, 0_u32);
        test.fails("room for nothing", ask(VersionOp::BuildId, buffer), Errno::EINVAL);
        memory::write(buffer, 4_u32);
        test.fails("too little room", ask(VersionOp::BuildId, buffer), Errno::ENOBUFS);
        memory::write(buffer, 64_u32);
        test.equal("enough room", ask(VersionOp::BuildId, buffer), length);
        test.equal("bytes after the identifier", memory::all_bytes(buffer + 4 + length as u64, 32, FILL), Ok(()));
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
