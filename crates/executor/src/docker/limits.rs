//! What a job may use of the machine. Nothing is unlimited: without settings it is a share of the
//! machine that leaves something to the machine itself.

use pipeyard_model::ByteSize;

/// What one container may use; 0 means no limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Memory in bytes, swap included.
    pub memory_bytes: u64,
    /// Processors, in parts too.
    pub cpus: f64,
    /// Processes and threads.
    pub pids: u32,
}

/// The machine that containers run on, as its Docker tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Processors.
    pub cpus: u32,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Limits {
    /// Processes and threads of a container.
    const PIDS: u32 = 4096;

    /// Of a job's own container, where `slots` jobs run at a time. Each has its part of the memory
    /// for itself. Processors are shared by need, so each may have all but a quarter of one.
    #[must_use]
    pub fn of_job(machine: Machine, slots: u32) -> Self {
        let total = machine.memory_bytes;
        let kept = (total / 8).clamp(512 * MIB, 4 * GIB);
        let share = total.saturating_sub(kept) / u64::from(slots.max(1));
        Self {
            memory_bytes: share.max(512 * MIB),
            cpus: (f64::from(machine.cpus.max(1)) - 0.25).max(0.5),
            pids: Self::PIDS,
        }
    }

    /// Of each sidecar beside it: half of the job's memory.
    #[must_use]
    pub fn of_sidecar(self) -> Self {
        let memory_bytes = match self.memory_bytes {
            0 => 0,
            bytes => (bytes / 2).max(256 * MIB),
        };
        Self { memory_bytes, ..self }
    }

    /// The memory for people.
    pub(crate) fn memory_text(self) -> String {
        match self.memory_bytes {
            0 => "the machine's memory".to_owned(),
            bytes => ByteSize(bytes).to_string(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 0, cpus: 0.0, pids: Self::PIDS }
    }
}

/// What a job may put on the disk: its workspace, and what its containers write beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskLimit {
    /// Bytes of one job; 0 means no limit.
    pub bytes: u64,
    /// The machine keeps so many free: below it jobs are ended that use much, and none is claimed.
    pub keep_free: u64,
}

impl DiskLimit {
    /// Kept free unless said otherwise.
    pub const KEEP_FREE: u64 = 512 * MIB;

    /// Of each of `slots` jobs on a disk with so much space.
    #[must_use]
    pub fn of_job(free: u64, slots: u32) -> Self {
        let share = free.saturating_sub(Self::KEEP_FREE) / u64::from(slots.max(1));
        Self { bytes: share.max(GIB), keep_free: Self::KEEP_FREE }
    }
}

impl Default for DiskLimit {
    fn default() -> Self {
        Self { bytes: 0, keep_free: Self::KEEP_FREE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_finite_limits_that_leave_it_something() {
        for gib in [1, 2, 4, 16, 64, 1024] {
            for (cpus, slots) in [(1, 1), (2, 2), (8, 4), (64, 64)] {
                let machine = Machine { memory_bytes: gib * GIB, cpus };
                let job = Limits::of_job(machine, slots);
                assert!(job.memory_bytes >= 512 * MIB, "{gib} {cpus} {slots}");
                assert!(job.memory_bytes < machine.memory_bytes, "{gib} {cpus} {slots}");
                assert!(job.cpus > 0.0 && job.cpus < f64::from(cpus) && job.pids > 0);
                let all = job.memory_bytes * u64::from(slots);
                assert!(all <= machine.memory_bytes || job.memory_bytes == 512 * MIB);
                let sidecar = job.of_sidecar();
                assert!(sidecar.memory_bytes > 0 && sidecar.memory_bytes < job.memory_bytes);
            }
        }
        let disk = DiskLimit::of_job(100 * GIB, 2);
        assert!(disk.bytes * 2 < 100 * GIB && disk.bytes > 40 * GIB);
        assert_eq!(DiskLimit::of_job(0, 4).bytes, GIB);
    }
}
