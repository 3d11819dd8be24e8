//! domctl about the state of HVM and PVH guests as a sequence of records: the framing, who gets which record, and what
//! around them changes. `x86` makes and takes the contents of single records.
//!
//! The sequence is HEADER, then each kind of record for each vCPU in the order of type codes, then END (public/hvm/save.h).
//! Toolstacks use it to start a PVH guest (CPU and MTRR records only) as well as to save and restore.

use super::{Answer, answer, parameters};
use crate::domain::Domain;
use crate::domain::destroy::Paused;
use crate::domain::lifecycle::Stage;
use crate::host::Host;
use crate::hypercall::Caller;
use crate::hypercall::access::Target;
use crate::outcome::Stop;
use crate::vcpu::{Vcpu, Wait};
use crate::x86::save;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use machine::log;
use machine::platform::cpuid;
use public_abi::Errno;
use public_abi::arch_hvm_save::{HVM_FILE_MAGIC, HVM_FILE_VERSION, HvmSaveHeader};
use public_abi::domctl::Domctl;
use public_abi::domctl_domain::{HvmContext, HvmContextPartial};
use public_abi::hvm_save::{Record, Records, SaveCode, SaveDescriptor};
use zerocopy::IntoBytes;

/// Kinds of records that vCPUs have, in the order in which they are written.
const PER_VCPU: [SaveCode; 8] = [
    SaveCode::Cpu,
    SaveCode::Lapic,
    SaveCode::LapicRegs,
    SaveCode::Mtrr,
    SaveCode::CpuXsave,
    SaveCode::VmceVcpu,
    SaveCode::TscAdjust,
    SaveCode::CpuMsr,
];
/// The largest sequence that is taken: 128 vCPUs with 8 KiB each need a fourth of it.
const MAX_BYTES: usize = 4 << 20;

/// gethvmcontext.
pub fn get(caller: &Caller<'_>, target: &Target<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    let mut context: HvmContext = parameters(request)?;
    target.other_or(Errno::EINVAL)?;
    let room = size(target);
    let room_32 = u32::try_from(room).map_err(|_| Errno::ENOMEM)?;
    if context.buffer.is_null() {
        context.size = room_32;
        return Ok(answer(request, &context)?);
    }
    if context.size < room_32 {
        return Err(Errno::ENOSPC.into());
    }
    check_alive(target)?;
    let mut out = buffer(room)?;
    {
        let _paused = Paused::new(caller.host, target);
        save(target, &mut out)?;
    }
    caller.memory.write_bytes(context.buffer.address(), &out)?;
    context.size = u32::try_from(out.len()).map_err(|_| Errno::ENOMEM)?;
    Ok(answer(request, &context)?)
}

/// sethvmcontext. The frame of the whole sequence is checked before the first record is taken; a record whose contents are
/// bad stops it in the middle, as in Xen: the domain must then not be started.
pub fn set(caller: &Caller<'_>, target: &Target<'_>, request: &HvmContext) -> Result<Answer, Stop> {
    target.other_or(Errno::EINVAL)?;
    let length = usize::try_from(request.size).unwrap_or(usize::MAX);
    if length > MAX_BYTES {
        return Err(Errno::ENOMEM.into());
    }
    let mut bytes = buffer(length)?;
    bytes.resize(length, 0);
    caller.memory.read_bytes(request.buffer.address(), &mut bytes)?;
    check_alive(target)?;
    let header = check_frame(&bytes)?;
    let _paused = Paused::new(caller.host, target);
    if header.gtsc_khz != 0 {
        target.control.lock().records.tsc.khz = header.gtsc_khz;
    }
    // Only vCPUs whose registers are in the sequence are up afterwards.
    for vcpu in target.vcpus() {
        vcpu.add_wait(Wait::DOWN);
    }
    for record in Records::new(&bytes).skip(1) {
        load(caller.host, target, &record.map_err(|_| Errno::ENODATA)?)?;
    }
    Ok(Answer::Unchanged)
}

/// gethvmcontext_partial: the contents of one record.
pub fn get_one(caller: &Caller<'_>, target: &Target<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    let mut partial: HvmContextPartial = parameters(request)?;
    target.other_or(Errno::EINVAL)?;
    check_alive(target)?;
    let code = match SaveCode::try_from(partial.kind) {
        Ok(SaveCode::End | SaveCode::Header) | Err(_) => return Err(Errno::EINVAL.into()),
        Ok(code) => code,
    };
    if !PER_VCPU.contains(&code) {
        // A device that a PVH guest does not have.
        return Err(Errno::ENOENT.into());
    }
    let vcpu = target.vcpu(partial.instance).ok_or(Errno::ENOENT)?;
    let mut contents = buffer(save::record_room(target, code))?;
    contents.resize(contents.capacity(), 0);
    let length = {
        let _paused = Paused::new(caller.host, target);
        save::save_record(target, vcpu, code, &mut contents)?.ok_or(Errno::ENODATA)?
    };
    let bytes = contents.get(..length).ok_or(Errno::ENODATA)?;
    let length = u64::try_from(length).map_err(|_| Errno::ENODATA)?;
    if !partial.buffer.is_null() {
        if partial.bufsz < length {
            return Err(Errno::ENOBUFS.into());
        }
        caller.memory.write_bytes(partial.buffer.address(), bytes)?;
    }
    partial.bufsz = length;
    Ok(answer(request, &partial)?)
}

fn check_alive(target: &Target<'_>) -> Result<(), Errno> {
    if target.lifecycle.stage() == Stage::Alive { Ok(()) } else { Err(Errno::EINVAL) }
}

/// An empty buffer with room for `bytes`.
fn buffer(bytes: usize) -> Result<Vec<u8>, Errno> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(bytes).map_err(|_| Errno::ENOMEM)?;
    Ok(buffer)
}

/// Bytes that a sequence of the domain has at the most.
fn size(domain: &Domain) -> usize {
    const DESCRIPTOR: usize = size_of::<SaveDescriptor>();
    let frame = DESCRIPTOR.saturating_mul(2).saturating_add(size_of::<HvmSaveHeader>());
    let rooms = PER_VCPU.iter().map(|code| save::record_room(domain, *code)).filter(|room| *room != 0);
    let per_vcpu = rooms.fold(0_usize, |sum, room| sum.saturating_add(room).saturating_add(DESCRIPTOR));
    frame.saturating_add(per_vcpu.saturating_mul(domain.vcpus().len()))
}

/// Writes the sequence. The buffer has room for it.
fn save(domain: &Domain, out: &mut Vec<u8>) -> Result<(), Errno> {
    let [processor, ..] = cpuid(1, 0);
    let own_khz = domain.control.lock().records.tsc.khz;
    let host_khz = u32::try_from(machine::cpu::timestamp_khz()).unwrap_or(u32::MAX);
    let header = HvmSaveHeader {
        magic: HVM_FILE_MAGIC,
        version: HVM_FILE_VERSION,
        changeset: u64::MAX,
        cpuid: processor,
        gtsc_khz: if own_khz == 0 { host_khz } else { own_khz },
    };
    append(out, SaveCode::Header, 0, header.as_bytes())?;
    for code in PER_VCPU {
        let room = save::record_room(domain, code);
        if room == 0 {
            continue;
        }
        for vcpu in domain.vcpus() {
            save_one(domain, vcpu, code, room, out).map_err(|errno| {
                log!(Error, "{}v{}: record {} cannot be saved: {errno}", domain.id, vcpu.index, code.name());
                Errno::ENODATA
            })?;
        }
    }
    append(out, SaveCode::End, 0, &[])
}

fn save_one(domain: &Domain, vcpu: &Vcpu, code: SaveCode, room: usize, out: &mut Vec<u8>) -> Result<(), Errno> {
    let start = out.len();
    let contents = start.checked_add(size_of::<SaveDescriptor>()).ok_or(Errno::ENODATA)?;
    extend(out, contents.saturating_add(room).saturating_sub(start))?;
    let place = out.get_mut(contents..).ok_or(Errno::ENODATA)?;
    let Some(length) = save::save_record(domain, vcpu, code, place)? else {
        out.truncate(start);
        return Ok(());
    };
    let descriptor = descriptor(code, vcpu.index, length)?;
    for (byte, value) in out.iter_mut().skip(start).zip(descriptor.as_bytes()) {
        *byte = *value;
    }
    out.truncate(contents.saturating_add(length));
    Ok(())
}

fn descriptor(code: SaveCode, instance: u32, length: usize) -> Result<SaveDescriptor, Errno> {
    Ok(SaveDescriptor {
        typecode: u16::try_from(code.number()).map_err(|_| Errno::ENODATA)?,
        instance: u16::try_from(instance).map_err(|_| Errno::ENODATA)?,
        length: u32::try_from(length).map_err(|_| Errno::ENODATA)?,
    })
}

/// Lengthens the buffer by zeroes, within the room that was reserved.
fn extend(out: &mut Vec<u8>, by: usize) -> Result<(), Errno> {
    let length = out.len().checked_add(by).filter(|length| *length <= out.capacity()).ok_or(Errno::ENODATA)?;
    out.resize(length, 0);
    Ok(())
}

fn append(out: &mut Vec<u8>, code: SaveCode, instance: u32, contents: &[u8]) -> Result<(), Errno> {
    let descriptor = descriptor(code, instance, contents.len())?;
    let start = out.len();
    extend(out, size_of::<SaveDescriptor>().saturating_add(contents.len()))?;
    for (byte, value) in out.iter_mut().skip(start).zip(descriptor.as_bytes().iter().chain(contents)) {
        *byte = *value;
    }
    Ok(())
}

/// Checks that a sequence begins with a header of this version and has whole records to its end.
fn check_frame(bytes: &[u8]) -> Result<HvmSaveHeader, Errno> {
    let mut records = Records::new(bytes);
    let first = records.next().ok_or(Errno::ENODATA)?.map_err(|_| Errno::ENODATA)?;
    let header: HvmSaveHeader = first.get().ok_or(Errno::ENODATA)?;
    if header.magic != HVM_FILE_MAGIC || header.version != HVM_FILE_VERSION {
        log!(Warning, "HVM context has magic {:#x} and version {}", header.magic, header.version);
        return Err(Errno::EINVAL);
    }
    for record in records {
        record.map_err(|truncated| {
            log!(Warning, "HVM context: {truncated}");
            Errno::ENODATA
        })?;
    }
    Ok(header)
}

fn load(host: &Host, domain: &Domain, record: &Record<'_>) -> Result<(), Errno> {
    let SaveDescriptor { typecode, instance, .. } = record.descriptor;
    let result = load_one(host, domain, record);
    if let Err(errno) = result {
        log!(Warning, "{}: HVM record {typecode}/{instance} is refused: {errno}", domain.id);
    }
    result
}

fn load_one(host: &Host, domain: &Domain, record: &Record<'_>) -> Result<(), Errno> {
    let code = SaveCode::try_from(u32::from(record.descriptor.typecode)).map_err(|_| Errno::EINVAL)?;
    if code == SaveCode::Header {
        return Err(Errno::EINVAL);
    }
    if !PER_VCPU.contains(&code) {
        // A device that a PVH guest does not have.
        return Err(Errno::ENODEV);
    }
    let vcpu = domain.vcpu(u32::from(record.descriptor.instance)).ok_or(Errno::EINVAL)?;
    save::load_record(host, domain, vcpu, code, record.contents)?;
    if code == SaveCode::Cpu {
        vcpu.x86.set_halted(false);
        vcpu.is_initialised.store(true, Ordering::Release);
        vcpu.clear_wait(Wait::DOWN);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(header: HvmSaveHeader) -> Vec<u8> {
        let mut out = buffer(1000).unwrap();
        append(&mut out, SaveCode::Header, 0, header.as_bytes()).unwrap();
        append(&mut out, SaveCode::Mtrr, 3, &[7; 10]).unwrap();
        append(&mut out, SaveCode::End, 0, &[]).unwrap();
        out
    }

    fn header() -> HvmSaveHeader {
        HvmSaveHeader { magic: HVM_FILE_MAGIC, version: HVM_FILE_VERSION, gtsc_khz: 9, ..HvmSaveHeader::default() }
    }

    #[test]
    fn a_sequence_is_framed_as_the_iterator_reads_it() {
        let bytes = sequence(header());
        assert_eq!(bytes.len(), 8 + 24 + 8 + 10 + 8);
        assert_eq!(check_frame(&bytes).unwrap().gtsc_khz, 9);
        let record = Records::new(&bytes).nth(1).unwrap().unwrap();
        assert_eq!((record.descriptor.typecode, record.descriptor.instance), (14, 3));
        assert_eq!(record.contents, [7; 10]);
    }

    #[test]
    fn every_cut_is_noticed_before_anything_is_taken() {
        let bytes = sequence(header());
        for length in 0..bytes.len() {
            assert_eq!(check_frame(&bytes[..length]), Err(Errno::ENODATA), "cut to {length} bytes");
        }
    }

    #[test]
    fn foreign_headers_are_refused() {
        assert_eq!(check_frame(&sequence(HvmSaveHeader { version: 2, ..header() })), Err(Errno::EINVAL));
        assert_eq!(check_frame(&sequence(HvmSaveHeader { magic: 1, ..header() })), Err(Errno::EINVAL));
        let mut out = buffer(100).unwrap();
        append(&mut out, SaveCode::Mtrr, 0, &[]).unwrap();
        append(&mut out, SaveCode::End, 0, &[]).unwrap();
        assert_eq!(check_frame(&out), Err(Errno::ENODATA), "the header must come first");
    }

    #[test]
    fn the_buffer_never_grows_beyond_what_was_reserved() {
        let mut out = buffer(10).unwrap();
        let room = out.capacity();
        assert_eq!(append(&mut out, SaveCode::Mtrr, 0, &alloc::vec![0; room]), Err(Errno::ENODATA));
        assert_eq!(out.capacity(), room);
    }
}
