//! Which vector of which CPU stands for which device's interrupt. Pure.
//!
//! Each CPU has vectors of its own. A new one goes to the CPU that has the fewest, and there to the number after the last
//! that was given out: a late interrupt with an old vector then seldom meets a new owner (and does no harm if it does: the
//! domain sees one interrupt too many).

use super::message::Message;
use alloc::vec::Vec;
use machine::CpuId;
use machine::boxed::OutOfMemory;
use machine::platform::DeviceVector;

/// Vectors of a CPU that devices may have.
const COUNT: usize = (DeviceVector::LAST - DeviceVector::FIRST) as usize + 1;

/// Where an interrupt goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// To a pin of the control domain's vIO-APIC.
    Pin(u8),
    /// To the control domain's local APICs.
    Message(Message),
    /// The hypervisor's own: an IOMMU has logged something.
    Iommu,
}

/// A vector of a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vector {
    /// Whose.
    pub cpu: CpuId,
    /// Its number.
    pub number: DeviceVector,
}

#[derive(Debug)]
struct OfCpu {
    /// Its APIC id, if messages and pins can name it: they have 8 bits, and 255 means all.
    apic_id: Option<u8>,
    owners: Vec<Option<Owner>>,
    used: usize,
    next: usize,
}

/// All vectors.
#[derive(Debug)]
pub struct Vectors(Vec<OfCpu>);

impl Vectors {
    /// Of the CPUs with these APIC ids.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(apic_ids: impl ExactSizeIterator<Item = u32>) -> Result<Self, OutOfMemory> {
        let mut cpus = Vec::new();
        cpus.try_reserve_exact(apic_ids.len()).map_err(|_| OutOfMemory)?;
        for apic_id in apic_ids {
            let mut owners = Vec::new();
            owners.try_reserve_exact(COUNT).map_err(|_| OutOfMemory)?;
            owners.resize(COUNT, None);
            let apic_id = u8::try_from(apic_id).ok().filter(|id| *id != u8::MAX);
            cpus.push(OfCpu { apic_id, owners, used: 0, next: 0 });
        }
        Ok(Self(cpus))
    }

    /// A vector for `owner`; `None` if all are in use.
    pub fn allocate(&mut self, owner: Owner) -> Option<Vector> {
        let reachable = self.0.iter_mut().enumerate().filter(|(_, cpu)| cpu.apic_id.is_some());
        let (number, cpu) = reachable.min_by_key(|(_, cpu)| cpu.used)?;
        let next = cpu.next;
        let mut order = (next..COUNT).chain(0..next);
        let place = order.find(|at| cpu.owners.get(*at).is_some_and(Option::is_none))?;
        *cpu.owners.get_mut(place)? = Some(owner);
        cpu.used = cpu.used.saturating_add(1);
        cpu.next = place.saturating_add(1) % COUNT;
        let vector = u8::try_from(place).ok()?.checked_add(DeviceVector::FIRST)?;
        Some(Vector { cpu: CpuId(u16::try_from(number).ok()?), number: DeviceVector::new(vector)? })
    }

    fn place(&mut self, vector: Vector) -> Option<(&mut Option<Owner>, &mut usize)> {
        let cpu = self.0.get_mut(vector.cpu.index())?;
        Some((cpu.owners.get_mut(index(vector.number))?, &mut cpu.used))
    }

    /// Gives a vector another owner.
    pub fn change(&mut self, vector: Vector, owner: Owner) {
        if let Some((place, _)) = self.place(vector)
            && place.is_some()
        {
            *place = Some(owner);
        }
    }

    /// Frees a vector.
    pub fn release(&mut self, vector: Vector) {
        if let Some((place, used)) = self.place(vector)
            && place.take().is_some()
        {
            *used = used.saturating_sub(1);
        }
    }

    /// Whose a CPU's vector is.
    pub fn owner(&self, cpu: CpuId, vector: DeviceVector) -> Option<Owner> {
        *self.0.get(cpu.index())?.owners.get(index(vector))?
    }

    /// The APIC id of a vector's CPU.
    pub fn destination(&self, vector: Vector) -> Option<u8> {
        self.0.get(vector.cpu.index())?.apic_id
    }
}

fn index(vector: DeviceVector) -> usize {
    usize::from(vector.number().saturating_sub(DeviceVector::FIRST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_spread_over_cpus_and_not_used_again_at_once() {
        let mut vectors = Vectors::try_new([0, 2, 0x100, 255].into_iter()).unwrap();
        let given: Vec<_> = (0..4).map(|pin| vectors.allocate(Owner::Pin(pin)).unwrap()).collect();
        let expected = [(0, 0x20), (1, 0x20), (0, 0x21), (1, 0x21)];
        assert_eq!(given.iter().map(|v| (v.cpu.0, v.number.number())).collect::<Vec<_>>(), expected);
        assert_eq!((vectors.destination(given[0]), vectors.destination(given[1])), (Some(0), Some(2)));
        vectors.release(given[0]);
        vectors.release(given[0]);
        assert_eq!(vectors.owner(CpuId(0), given[0].number), None);
        let next = vectors.allocate(Owner::Pin(9)).unwrap();
        assert_eq!((next.cpu.0, next.number.number()), (0, 0x22));
        vectors.change(given[0], Owner::Pin(7));
        assert_eq!(vectors.owner(CpuId(0), given[0].number), None, "nobody's vector stays nobody's");
        vectors.change(next, Owner::Pin(8));
        assert_eq!(vectors.owner(CpuId(0), next.number), Some(Owner::Pin(8)));
        assert_eq!(vectors.owner(CpuId(9), next.number), None);
    }

    #[test]
    fn all_vectors_can_be_had_once() {
        let mut vectors = Vectors::try_new([0, 1].into_iter()).unwrap();
        let mut seen = std::collections::HashSet::new();
        while let Some(vector) = vectors.allocate(Owner::Pin(0)) {
            assert!(seen.insert((vector.cpu.0, vector.number.number())));
        }
        assert_eq!(seen.len(), 2 * COUNT);
        vectors.release(Vector { cpu: CpuId(1), number: DeviceVector::new(0x80).unwrap() });
        assert_eq!(vectors.allocate(Owner::Pin(0)).map(|v| (v.cpu.0, v.number.number())), Some((1, 0x80)));
        assert_eq!(Vectors::try_new([300].into_iter()).unwrap().allocate(Owner::Pin(0)), None, "nobody can be reached");
    }
}
