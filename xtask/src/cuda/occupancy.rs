//! How many blocks of a kernel a multiprocessor holds (CUDA C++ programming guide, "Compute capabilities").

/// A kind of card.
pub struct Card {
    pub name: &'static str,
    warps: u32,
    blocks: u32,
    shared: usize,
    /// Largest bf16 rate of the tensor cores with f32 sums, FLOP/s.
    pub flops: f64,
    /// Memory, bytes a second.
    pub bandwidth: f64,
}

/// The cards that tables are for (data sheets: A100 80 GB SXM, RTX 4090, H100 SXM).
pub const CARDS: &[Card] = &[
    Card { name: "A100", warps: 64, blocks: 32, shared: 164 << 10, flops: 312e12, bandwidth: 2.039e12 },
    Card { name: "RTX 4090", warps: 48, blocks: 24, shared: 100 << 10, flops: 165e12, bandwidth: 1.008e12 },
    Card { name: "H100", warps: 64, blocks: 32, shared: 228 << 10, flops: 989e12, bandwidth: 3.35e12 },
];

/// Most shared memory of a block on every card from 8.0 on: that of 8.6 and 8.9.
pub const MOST_SHARED: usize = 99 << 10;

const REGISTERS: u32 = 65_536;
/// Registers are given to a warp in units, shared memory to a block in units and with some for the system.
const REGISTER_UNIT: u32 = 256;
const SHARED_UNIT: usize = 128;
const SHARED_OF_SYSTEM: usize = 1 << 10;

impl Card {
    /// Blocks of a multiprocessor.
    pub fn blocks(&self, threads: u32, registers: u32, shared: usize) -> u32 {
        let warps = threads.div_ceil(32);
        let of_warp = (registers * 32).next_multiple_of(REGISTER_UNIT).max(REGISTER_UNIT);
        let by_registers = REGISTERS / of_warp / warps;
        let by_shared = self.shared / (shared.next_multiple_of(SHARED_UNIT) + SHARED_OF_SYSTEM);
        self.blocks.min(self.warps / warps).min(by_registers).min(by_shared as u32)
    }

    /// Warps of a multiprocessor, in per cent of what it can hold.
    pub fn occupancy(&self, threads: u32, registers: u32, shared: usize) -> u32 {
        self.blocks(threads, registers, shared) * threads.div_ceil(32) * 100 / self.warps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_bind_in_turn() {
        let a100 = &CARDS[0];
        // Registers: 255 of 128 threads are 32,768 a block.
        assert_eq!(a100.blocks(128, 255, 0), 2);
        // Shared memory: 164 KiB hold two of 80 KiB and what the system takes, not two of 96 KiB.
        assert_eq!((a100.blocks(128, 32, 81_920), a100.blocks(128, 32, 98_304)), (2, 1));
        // Warps, and blocks.
        assert_eq!((a100.blocks(1024, 32, 0), a100.blocks(32, 16, 0)), (2, 32));
        assert_eq!(a100.occupancy(256, 64, 0), 50);
    }
}
